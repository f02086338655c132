"""The command, after its flags have been read."""

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path

from absl import flags

from fgr_jax import compilation
from fgr_jax.data.image_files import is_fault
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError, shown
from fgr_jax.evaluate.files import read_rejection
from fgr_jax.files.local import local_path
from fgr_jax.inference.saved_run import TrainedNetwork, TrainedRun, open_run, restore
from fgr_jax.models.network import output_shapes
from fgr_jax.predict.files import BATCHES_AHEAD, find, in_words, stream
from fgr_jax.predict.output import PredictionFile, check
from fgr_jax.predict.overlays import Overlays
from fgr_jax.predict.predictions import Prediction, Predictor
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal


def predict(own: flags.FlagValues, paths: Sequence[str]) -> None:
    """Predicts the classes of the images at `paths`, as the flags say.

    Raises:
      UserError: a file could not be used; the others are done.
    """
    found = find(paths)
    output = local_path(own.output, "--output") if own.output else None
    heatmaps = local_path(own.heatmaps, "--heatmaps") if own.heatmaps else None
    if output:
        check(output, found.files)
    run = open_run(Workdir.open(own.workdir))
    compilation.set_up(run.config)
    mesh = data_mesh()
    trained = restore(run, own.step, mesh)
    rejection = None
    if own.reject_below is not None:
        rejection = read_rejection(run.workdir, trained.step)
    if heatmaps:
        _create(heatmaps, trained, run)
    for line in in_words(found.left_out):
        _tell(line)
    top = min(own.top, len(run.class_names))
    # No larger than the number of images, so that a single image is a batch of one.
    batch_size = -(-min(own.batch_size, len(found.files)) // mesh.size) * mesh.size
    predictor = Predictor(
        trained,
        mesh,
        crop=run.config.data.crop,
        batch_size=batch_size,
        top=top,
        with_maps=heatmaps is not None,
        rejection=rejection,
        reject_below=own.reject_below or 0.0,
    )
    threads, ahead = run.config.runtime.decode_threads, BATCHES_AHEAD * batch_size
    network = trained.network
    images = stream(
        found.files, run.config.data, threads=threads, ahead=ahead, padding=network.padding
    )
    overlays = (
        Overlays(heatmaps, found.files, run, network.stride, network.origin) if heatmaps else None
    )
    with (
        PredictionFile(output, run.class_names, top, with_percentiles=rejection is not None)
        if output
        else nullcontext() as file
    ):
        problems = _use_all(predictor.predict(images), len(found.files), run, file, overlays)
    terminal = Terminal()
    done = len(found.files) - problems.unreadable
    if output:
        terminal.line(f"{done:,} {'image' if done == 1 else 'images'}: {output}")
    if heatmaps:
        terminal.line(f"heat maps: {heatmaps}")
    problems.missing = sum(len(paths) for why, paths in found.left_out.items() if is_fault(why))
    problems.raise_if_any(len(found.files))


@dataclasses.dataclass
class _Problems:
    """What could not be done for the user's files."""

    unreadable: int = 0  # images
    heatmaps: int = 0  # images without heat maps
    missing: int = 0  # folders that could not be searched, and broken links

    def raise_if_any(self, files: int) -> None:
        words = []
        if self.unreadable:
            words.append(f"{self.unreadable:,} of {files:,} files could not be read")
        if self.missing:
            words.append(f"{self.missing:,} of the folders and links could not be read")
        if self.heatmaps:
            words.append(f"the heat maps of {self.heatmaps:,} could not be written")
        if words:
            raise UserError(
                f"{', and '.join(words)}; they are named above, and the others are done"
            )


def _create(heatmaps: Path, trained: TrainedNetwork, run: TrainedRun) -> None:
    """Creates the folder for heat maps, which the network must have."""
    maps = output_shapes(trained.network, trained.variables, run.config.data.crop).maps
    if maps is None:
        raise UserError(
            f"--heatmaps={heatmaps}: the network of {run.workdir.name} has no class activation "
            "maps; leave the flag out"
        )
    try:
        heatmaps.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--heatmaps={heatmaps}: cannot be created ({error.strerror}); name another folder"
        ) from error


def _use_all(
    predictions: Iterable[Prediction],
    count: int,
    run: TrainedRun,
    file: PredictionFile | None,
    overlays: Overlays | None,
) -> _Problems:
    """Prints the predictions or writes them to `file`, and their heat maps, one after the other."""
    terminal, problems = Terminal(), _Problems()
    with terminal.bar("predicting", count, unit="images", per=1) as bar:
        for done, prediction in enumerate(predictions, start=1):
            name, problem = prediction.image.path, prediction.image.problem
            if problem:
                problems.unreadable += 1
                _tell(f"{name} {problem}")
            if file is not None:
                file.add(prediction)
            elif not problem:
                pairs = prediction.named(run.class_names)
                listed = ", ".join(f"{class_name} {value:.1%}" for class_name, value in pairs)
                if prediction.is_rejected:
                    listed = f"none of the classes ({listed})"
                terminal.line(f"{name}: {listed}")
            problem = overlays.write(prediction) if overlays and not problem else ""
            if problem:
                problems.heatmaps += 1
                _tell(f"{name}: no heat maps ({problem})")
            bar.update(done)
    return problems


def _tell(text: str) -> None:
    """Writes a line to standard error, apart from the predictions."""
    print(shown(text), file=sys.stderr)

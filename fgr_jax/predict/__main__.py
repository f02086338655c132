"""Predicts the classes of unlabeled images with a trained network.

    python -m fgr_jax.predict --workdir=runs/mine PATH ... [--top=5] [--output=FILE.csv|.json]
                              [--heatmaps=FOLDER] [--batch_size=N] [--step=N]

PATH is an image, or a folder that is searched recursively. For each image the --top most probable
classes are printed, or written to the file that --output names. --heatmaps writes, for each of these
classes, the image overlaid with the class activation map: warm colors are evidence for the class, and
gray lies outside the crop that the network is applied to. Files that cannot be read are reported and
skipped, and the exit status is then 1.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
from absl import flags

from fgr_jax.config import Data
from fgr_jax.data.images import decode
from fgr_jax.distributed import compute_deterministically, data_mesh
from fgr_jax.errors import UserError
from fgr_jax.inference.heatmaps import over_center_crop
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.models.network import output_shapes
from fgr_jax.predict import output
from fgr_jax.predict.files import BATCHES_AHEAD, find, stream
from fgr_jax.predict.predictions import Prediction, Predictor
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal

# Characters that not all file systems allow in file names.
_REPLACED = str.maketrans(dict.fromkeys('/\\:*?"<>|\x00', "_"))


def main(argv: Sequence[str]) -> int:
    """Returns the exit status. Raises a UserError (status 1) if a file could not be read."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_integer("top", 5, "how many classes", lower_bound=1, flag_values=own)
    flags.DEFINE_string("output", None, "a .csv or .json file", flag_values=own)
    flags.DEFINE_string("heatmaps", None, "a folder for overlays", flag_values=own)
    flags.DEFINE_integer("batch_size", 32, "images at once", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    paths = find(cli.parse_flags(argv, __doc__ or "", own, positional=("PATH ...",)))
    run = open_run(Workdir.open(own.workdir))
    data, class_names = run.config.data, run.class_names
    compute_deterministically(run.config.deterministic)
    mesh = data_mesh()
    trained = restore(run, own.step, mesh)
    has_maps = output_shapes(trained.network, trained.variables, data.crop).maps is not None
    if own.heatmaps and not has_maps:
        raise UserError(
            f"--heatmaps={own.heatmaps}: the network of {run.workdir.name} has no class activation "
            "maps; leave the flag out"
        )
    terminal = Terminal()
    top = min(own.top, len(class_names))
    # No larger than the number of images, so that a single image is a batch of one.
    batch_size = -(-min(own.batch_size, len(paths)) // mesh.size) * mesh.size
    with_maps = bool(own.heatmaps)
    predictor = Predictor(
        trained, mesh, crop=data.crop, batch_size=batch_size, top=top, with_maps=with_maps
    )
    threads, ahead = run.config.runtime.decode_threads, BATCHES_AHEAD * batch_size
    images = stream(paths, data, threads=threads, ahead=ahead)
    common = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
    unreadable = 0
    with ExitStack() as stack:
        add = None
        if own.output:
            add = stack.enter_context(output.opened(Path(own.output), class_names, top))
        bar = stack.enter_context(terminal.bar("predicting", len(paths), unit="images", per=1))
        for done, prediction in enumerate(predictor.predict(images), start=1):
            path, problem = prediction.image.path, prediction.image.problem
            if problem:
                unreadable += 1
                print(f"{path} {problem}", file=sys.stderr)
            if add is not None:
                add(prediction)
            elif not problem:
                terminal.line(_as_text(prediction, class_names))
            if prediction.maps is not None:
                target = Path(own.heatmaps) / os.path.relpath(path, common)
                _write_heatmaps(prediction, class_names, data, trained.network.stride, target)
            bar.update(done)
    if own.output:
        terminal.line(f"{len(paths) - unreadable:,} images: {own.output}")
    if own.heatmaps:
        terminal.line(f"heat maps: {own.heatmaps}")
    if unreadable:
        raise UserError(
            f"{unreadable:,} of {len(paths):,} files could not be read; they are named above, and the "
            "others are done"
        )
    return 0


def _as_text(prediction: Prediction, class_names: Sequence[str]) -> str:
    pairs = prediction.named(class_names)
    listed = ", ".join(f"{name} {probability:.1%}" for name, probability in pairs)
    return f"{prediction.image.path}: {listed}"


def _write_heatmaps(
    prediction: Prediction, class_names: Sequence[str], data: Data, stride: int, target: Path
) -> None:
    """Writes <target>.<place>-<class>.jpg for every class of the prediction."""
    assert prediction.maps is not None
    encoded = prediction.image.path.read_bytes()
    image = decode(encoded, cut_bottom=data.cut_bottom, max_pixels=data.max_pixels)
    target.parent.mkdir(parents=True, exist_ok=True)
    maps = zip(prediction.classes, prediction.maps, strict=True)
    for place, (index, activation) in enumerate(maps, start=1):
        overlaid = over_center_crop(image, activation, data, stride)
        class_name = class_names[index].translate(_REPLACED)
        name = target.with_name(f"{target.name}.{place}-{class_name}.jpg")
        name.write_bytes(cv2.imencode(".jpg", overlaid[:, :, ::-1])[1].tobytes())


if __name__ == "__main__":
    cli.run(main)

"""Says what a trained network makes of pictures that nobody has labeled.

    python -m fgr_jax.predict --workdir=runs/mine PATH ... [--top=5] [--output=FILE.csv|.json]
                              [--heatmaps=FOLDER] [--batch_size=N] [--step=N]

PATH is a picture, or a folder that is searched to the bottom. For each picture the --top most probable
classes are printed, or written into the file --output names. --heatmaps writes the picture with the
class activation map over it, for each of these classes: warm is where the network sees the class, gray
what it was not shown. Files that are no pictures are named and left out, and the exit status is 1 then.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import cv2
from absl import flags

from fgr_jax import cli
from fgr_jax.config import Data
from fgr_jax.data import images
from fgr_jax.distributed import compute_deterministically, data_mesh
from fgr_jax.errors import UserError
from fgr_jax.inference.heatmaps import over_center_crop
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.predict.guesses import Guess, compiled_look, guesses
from fgr_jax.predict.pictures import BATCHES_AHEAD, find, stream
from fgr_jax.predict.records import records
from fgr_jax.runs.folder import RunFolder
from fgr_jax.terminal import Terminal

_UNNAMED = str.maketrans(dict.fromkeys('/\\:*?"<>|\x00', "_"))


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 1 where a file could not be read."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_integer("top", 5, "how many classes", lower_bound=1, flag_values=own)
    flags.DEFINE_string("output", None, "a .csv or .json file", flag_values=own)
    flags.DEFINE_string("heatmaps", None, "a folder for overlays", flag_values=own)
    flags.DEFINE_integer("batch_size", 32, "pictures at once", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    named = cli.parse_flags(argv, __doc__ or "", own, positional=("PATH ...",))
    paths = find(named)
    run = open_run(RunFolder.open(own.workdir))
    config = run.config
    compute_deterministically(config.deterministic)
    mesh = data_mesh()
    trained = restore(run, own.step, mesh)
    terminal = Terminal()
    top = min(own.top, len(run.class_names))
    # No larger than what there is: one picture is answered as one.
    batch_size = -(-min(own.batch_size, len(paths)) // mesh.size) * mesh.size
    common = os.path.commonpath([os.path.abspath(path.parent) for path in paths])
    unreadable = 0
    with ExitStack() as stack:
        add = (
            stack.enter_context(records(Path(own.output), run.class_names, top))
            if own.output
            else None
        )
        bar = stack.enter_context(terminal.bar("looking", len(paths), unit="images", per=1))
        pictures = stream(
            paths,
            config.data,
            threads=config.runtime.decode_threads,
            ahead=BATCHES_AHEAD * batch_size,
        )
        look = compiled_look(trained, mesh, top=top, with_maps=own.heatmaps is not None)
        for done, guess in enumerate(guesses(pictures, look, batch_size=batch_size), start=1):
            if guess.picture.problem:
                unreadable += 1
                print(f"{guess.picture.path} {guess.picture.problem}", file=sys.stderr)
            elif add is None:
                terminal.line(_in_words(guess, run.class_names))
            if add is not None:
                add(guess)
            if guess.maps is not None:
                name = os.path.relpath(guess.picture.path, common)
                target = Path(own.heatmaps) / name
                _write_heatmaps(guess, run.class_names, config.data, trained.network.stride, target)
            bar.update(done)
    if own.output:
        terminal.line(f"{len(paths) - unreadable:,} pictures: {own.output}")
    if own.heatmaps:
        terminal.line(f"heat maps: {own.heatmaps}")
    if unreadable:
        raise UserError(
            f"{unreadable:,} of {len(paths):,} files could not be read; they are named above, and the "
            "others are done"
        )
    return 0


def _in_words(guess: Guess, class_names: Sequence[str]) -> str:
    parts = [
        f"{class_names[index]} {probability:.1%}"
        for index, probability in zip(guess.classes, guess.probabilities, strict=True)
    ]
    return f"{guess.picture.path}: {', '.join(parts)}"


def _write_heatmaps(
    guess: Guess, class_names: Sequence[str], data: Data, stride: int, target: Path
) -> None:
    """<target>.<place>-<class>.jpg, for every class that was guessed."""
    assert guess.maps is not None
    path = guess.picture.path
    picture = images.decode(path.read_bytes(), cut_bottom=data.cut_bottom)
    target.parent.mkdir(parents=True, exist_ok=True)
    for place, (index, activation) in enumerate(zip(guess.classes, guess.maps, strict=True), 1):
        shown = over_center_crop(
            picture, activation, resize=data.resize, crop_size=data.crop, stride=stride
        )
        class_name = class_names[index].translate(_UNNAMED)
        name = target.with_name(f"{target.name}.{place}-{class_name}.jpg")
        encoded = cv2.imencode(".jpg", shown[:, :, ::-1])[1]
        name.write_bytes(encoded.tobytes())


if __name__ == "__main__":
    cli.run(main)

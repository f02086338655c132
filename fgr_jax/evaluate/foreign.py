"""How well images of none of the classes are rejected, measured on a folder of such images."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from fgr_jax.config import Data
from fgr_jax.data.image_files import find_images
from fgr_jax.data.images import Color, Image, ImageError, test_crops
from fgr_jax.data.read_ahead import map_ahead
from fgr_jax.errors import UserError
from fgr_jax.evaluate.evaluated_run import EvaluatedRun
from fgr_jax.evaluate.measures import Scores
from fgr_jax.evaluate.rejection import auroc, log_confidences
from fgr_jax.files.local import no_such
from fgr_jax.inference.forward import (
    IMAGES_PER_DEVICE,
    HostBatch,
    compiled,
    on_this_process,
    padded,
    stream,
)
from fgr_jax.terminal import Terminal

_BATCHES_AHEAD = 2
# The shares of the test images that are given up.
SHARES = (0.01, 0.05, 0.1, 0.2)


@dataclasses.dataclass(frozen=True, slots=True)
class ForeignImages:
    """The results on images of none of the classes."""

    folder: str
    images: int
    unreadable: int  # not among these
    auroc: float  # of the confidence, test images against these
    rejected: dict[float, float]  # the share of them that is rejected, by that of the test images

    def json(self) -> dict[str, Any]:
        """Returns the fields, for `results.json`."""
        rejected = {f"{share:g}": value for share, value in self.rejected.items()}
        return {**dataclasses.asdict(self), "rejected": rejected}


def find_foreign(folder: str) -> list[Path]:
    """Returns the images in a folder.

    Raises:
      UserError: it holds none, or is not a folder.
    """
    path = Path(folder)
    if not path.is_dir():
        raise UserError(f"--foreign={folder}: {no_such('folder', path)}")
    files = find_images(path).files
    if not files:
        raise UserError(f"--foreign={folder}: holds no image")
    return files


def measure_foreign(
    evaluated: EvaluatedRun, folder: str, files: list[Path], mesh: Mesh, terminal: Terminal
) -> ForeignImages:
    """Applies the network to the center crops of images, on the devices of this process.

    Args:
      evaluated: the run, evaluated on its test split.
      folder: where the images are, as given by the user.
      files: the images.
      mesh: all devices.
      terminal: shows the progress.

    Raises:
      UserError: no image can be read.
    """
    scores = _scores(evaluated, files, mesh, terminal)
    if not len(scores):
        raise UserError(f"--foreign={folder}: no image can be read")
    rejection = evaluated.evaluation.rejection
    confidences = log_confidences(scores, rejection.temperature)
    percentiles = rejection.percentiles(scores)
    return ForeignImages(
        folder,
        len(scores),
        len(files) - len(scores),
        auroc(rejection.test_confidences, confidences),
        {share: float(np.mean(percentiles < share)) for share in SHARES},
    )


def _scores(evaluated: EvaluatedRun, files: list[Path], mesh: Mesh, terminal: Terminal) -> Scores:
    """Returns the scores of the images that can be read, `[n, C]`."""
    config = evaluated.run.config
    trained, local = on_this_process(evaluated.trained, mesh)
    run = compiled(trained, local, lambda outputs, _: outputs.scores)
    size = IMAGES_PER_DEVICE * local.size
    read = functools.partial(_read, config.data, trained.network.padding)
    crops = map_ahead(
        read, files, threads=config.runtime.decode_threads, ahead=_BATCHES_AHEAD * size
    )

    def batches() -> Iterator[tuple[int, HostBatch]]:
        waiting: list[Image] = []
        with terminal.bar("foreign images", len(files), unit="images", per=1) as bar:
            for done, crop in enumerate(crops, start=1):
                bar.update(done)
                waiting += [] if crop is None else [crop]
                if len(waiting) == size or (waiting and done == len(files)):
                    yield len(waiting), {"image": padded(np.stack(waiting), size)}
                    waiting = []

    parts = [scores[:count] for count, scores in stream(run, batches(), local)]
    return np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)


def _read(data: Data, padding: Color | None, path: Path) -> Image | None:
    """Returns the center crop of an image, or None if it cannot be read."""
    try:
        return test_crops(path.read_bytes(), data, 1, padding)[0]
    except (ImageError, OSError):
        return None

"""The training images that are nearest to an image, of each class that is predicted for it."""

import dataclasses
import zipfile
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from fgr_jax.data.images import decode
from fgr_jax.data.pipeline import Share, evaluation_batches
from fgr_jax.data.source import ExampleSource
from fgr_jax.files.atomic import atomic_write
from fgr_jax.inference.forward import IMAGES_PER_DEVICE, DeviceBatch, compiled, stream
from fgr_jax.inference.saved_run import TrainedNetwork, TrainedRun
from fgr_jax.inference.thumbnails import as_jpeg, shrunk
from fgr_jax.losses.interface import Outputs
from fgr_jax.serve.uploads import JPEG_QUALITY
from fgr_jax.terminal import Terminal

_LONGER_SIDE = 160  # of a training image on the page, in pixels


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbor:
    """A training image, and how similar it is: the cosine of the angle between the features."""

    index: int
    name: str
    similarity: float


class Neighbors:
    """The training images of a run, with their features.

    Args:
      run: the run.
      source: its training images.
      features: averaged over space, `[N, D]`; NaN for an image that cannot be read.
      labels: int `[N]`.
    """

    def __init__(
        self,
        run: TrainedRun,
        source: ExampleSource,
        features: npt.NDArray[np.floating],
        labels: npt.NDArray[np.integer],
    ):
        self._data, self._source = run.config.data, source
        self._directions = _normalized(features)
        self._of_class = [np.flatnonzero(labels == c) for c in range(len(run.class_names))]

    def nearest(self, features: npt.NDArray[np.floating], label: int, count: int) -> list[Neighbor]:
        """Returns the `count` images of a class that are most similar to `features`, `[D]`."""
        rows = self._of_class[label]
        similarity = self._directions[rows] @ _normalized(features)
        order = np.argsort(-np.nan_to_num(similarity, nan=-np.inf), kind="stable")[:count]
        return [
            Neighbor(int(rows[i]), self._source[int(rows[i])].name, float(similarity[i]))
            for i in order
            if np.isfinite(similarity[i])
        ]

    def __len__(self) -> int:
        return len(self._directions)

    def jpeg(self, index: int) -> bytes:
        """Returns a small version of a training image.

        Raises:
          ImageError: it cannot be decoded.
        """
        encoded, data = self._source[index].encoded_image, self._data
        image = decode(encoded, cut_bottom=data.cut_bottom, max_pixels=data.max_pixels)
        return as_jpeg(shrunk(image, _LONGER_SIDE), JPEG_QUALITY)


def find_neighbors(
    run: TrainedRun, trained: TrainedNetwork, source: ExampleSource, mesh: Mesh, terminal: Terminal
) -> Neighbors:
    """Computes the features of all training images, or reads them where they are computed already.

    They are kept in the workdir, for this checkpoint and these images.
    """
    path = run.workdir.local / f"training_features-{trained.step}.npz"
    identity = str(source.identity)
    try:
        with np.load(path) as file:
            if str(file["identity"]) == identity and len(file["labels"]) == len(source):
                return Neighbors(run, source, file["features"], file["labels"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # it is not there, or of an interrupted write of something else
    features, labels = _computed(run, trained, source, mesh, terminal)
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, features=features, labels=labels, identity=identity)
    return Neighbors(run, source, features, labels)


def _computed(
    run: TrainedRun, trained: TrainedNetwork, source: ExampleSource, mesh: Mesh, terminal: Terminal
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.int32]]:
    data, runtime = dataclasses.replace(run.config.data, corrupt_images="skip"), run.config.runtime
    batches = evaluation_batches(
        source, data, runtime, Share(IMAGES_PER_DEVICE), padding=trained.network.padding
    )
    rows = np.arange(len(source))
    features, labels = list[Any](), list[Any]()

    def select(outputs: Outputs, _: DeviceBatch) -> Any:
        return outputs.features

    with terminal.bar("features of the training images", len(source), unit="images", per=1) as bar:
        noted = ((batch, {"image": batch["image"]}) for batch in batches)
        for batch, made in stream(compiled(trained, mesh, select), noted, mesh):
            made = np.where(np.asarray(batch["mask"])[:, None], made, np.nan)
            features.append(made.astype(np.float16))
            labels.append(batch["label"])
            bar.update(min(IMAGES_PER_DEVICE * len(features), len(rows)))
    return np.concatenate(features)[rows], np.concatenate(labels)[rows]


def _normalized(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Scales features `[..., D]` to length 1; those of length 0 stay as they are."""
    features = features.astype(np.float32)
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return (features / np.where(length == 0, 1, length)).astype(np.float32)

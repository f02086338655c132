"""The most probable classes of each image, batch by batch."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from fgr_jax.evaluate.rejection import Rejection
from fgr_jax.inference.forward import DeviceBatch, HostBatch, compiled, most_probable, stream
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.losses.interface import Outputs
from fgr_jax.predict.files import ImageFile


class Prediction(NamedTuple):
    """The prediction for an image; empty where the image cannot be read."""

    image: ImageFile
    classes: Sequence[int]  # [top], the most probable first
    probabilities: Sequence[float]
    maps: npt.NDArray[np.float32] | None  # of these classes, [top, h, w]; None if not requested
    # The share of test images with a lower confidence; None if not requested.
    percentile: float | None = None
    is_rejected: bool = False  # as an image of none of the classes

    def named(self, class_names: Sequence[str]) -> list[tuple[str, float]]:
        """Returns the names and the probabilities of the classes."""
        names = [class_names[index] for index in self.classes]
        return list(zip(names, self.probabilities, strict=True))


class Predictor:
    """Applies a trained network to image files.

    Args:
      trained: the network.
      mesh: the devices.
      crop: the network's input, in pixels.
      batch_size: a multiple of the number of devices.
      top: the number of classes in each prediction.
      with_maps: whether predictions include the maps of these classes.
      rejection: the confidence in the test images, to compare the predictions with; None: none is
        rejected.
      reject_below: the percentile among the test images below which an image is rejected.
    """

    def __init__(
        self,
        trained: TrainedNetwork,
        mesh: Mesh,
        *,
        crop: int,
        batch_size: int,
        top: int,
        with_maps: bool = False,
        rejection: Rejection | None = None,
        reject_below: float = 0.0,
    ):
        self._mesh = mesh
        self._rejection, self._reject_below = rejection, reject_below
        self._shape = (batch_size, crop, crop, 3)

        def select(outputs: Outputs, _: DeviceBatch) -> Any:
            classes, probabilities, maps = most_probable(outputs, top)
            assert maps is not None or not with_maps
            scores = None if rejection is None else outputs.scores
            return classes, probabilities, maps if with_maps else None, scores

        self._run = compiled(trained, mesh, select)

    def predict(self, images: Iterable[ImageFile]) -> Iterator[Prediction]:
        """Yields a prediction for each of `images`, in order.

        While a batch is on the devices, the previous one is yielded and the next one is assembled.
        """
        results = stream(self._run, self._batches(images), self._mesh)
        for files, (classes, probabilities, maps, scores) in results:
            percentiles = None
            if self._rejection is not None:
                percentiles = self._rejection.percentiles(scores).tolist()
            for row, image in enumerate(files):
                if image.crop is None:
                    yield Prediction(image, [], [], None)
                    continue
                of_image = None if maps is None else maps[row]
                percentile = None if percentiles is None else percentiles[row]
                yield Prediction(
                    image,
                    classes[row].tolist(),
                    probabilities[row].tolist(),
                    of_image,
                    percentile,
                    percentile is not None and percentile < self._reject_below,
                )

    def _batches(self, images: Iterable[ImageFile]) -> Iterator[tuple[list[ImageFile], HostBatch]]:
        waiting = iter(images)
        while files := list(itertools.islice(waiting, self._shape[0])):
            crops = np.zeros(self._shape, np.uint8)
            for row, image in enumerate(files):
                if image.crop is not None:
                    crops[row] = image.crop
            yield files, {"image": crops}

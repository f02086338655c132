"""Maps and features of a few images of an evaluated run; those of all images would not fit in memory."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from fgr_jax.data.images import Canvas, Image, decode, test_crops
from fgr_jax.evaluate import measures
from fgr_jax.evaluate.evaluated_run import EvaluatedRun
from fgr_jax.inference.forward import (
    DeviceBatch,
    HostBatch,
    compiled,
    maps_of,
    on_this_process,
    padded,
    stream,
)
from fgr_jax.inference.heatmaps import over_center_crop
from fgr_jax.inference.thumbnails import as_url, shrunk
from fgr_jax.losses.interface import Outputs

_MAPS = 2  # the maximum number of maps shown for an image
_LONGER_SIDE = 240  # of a thumbnail, in pixels: the width of a card, and about 10 kB
_JPEG_QUALITY = 82


class RunImages:
    """Images of a run's test split, by their index in the run's predictions.

    The network runs on the devices of this process only.
    """

    def __init__(self, evaluated: EvaluatedRun, mesh: Mesh):
        self.evaluation = evaluated.evaluation
        self.has_maps = self.evaluation.true_map is not None
        probabilities = measures.probabilities(self.evaluation.predictions.scores)
        # The true classes, and their probabilities, [N].
        self.labels = self.evaluation.predictions.per_image.label
        self.true_probabilities = np.take_along_axis(probabilities, self.labels[:, None], 1)[:, 0]
        self._source, self._data = evaluated.source, evaluated.run.config.data
        network = evaluated.trained.network
        self._stride, self._origin = network.stride, network.origin
        self._padding = network.padding
        trained, self._mesh = on_this_process(evaluated.trained, mesh)
        # As many images per device as in the run's batches, which are sharded over all devices.
        self._batch_size = -(-evaluated.run.config.batch_size // mesh.size) * self._mesh.size
        self._run = compiled(trained, self._mesh, _maps_and_features)
        self._thumbnails: dict[int, tuple[Image, Canvas]] = {}

    def maps(
        self, indices: Sequence[int], classes: Sequence[Sequence[int]]
    ) -> list[npt.NDArray[np.float32]]:
        """Computes the maps of up to two classes of each image, `[K, h, w]`."""
        computed = [maps for batch, _ in self._forward(indices, classes) for maps in batch]
        return [maps[: len(wanted)] for maps, wanted in zip(computed, classes, strict=True)]

    def features(self, indices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Computes the pooled features of each image, `[n, D]`."""
        return np.concatenate([batch for _, batch in self._forward(indices, [[]] * len(indices))])

    def image_url(self, index: int) -> str:
        """Returns a thumbnail of an image as a `data:` URL."""
        return as_url(self._thumbnail(index)[0], _JPEG_QUALITY)

    def heat_map_urls(
        self, indices: Sequence[int], classes: Sequence[Sequence[int]]
    ) -> list[list[str]]:
        """Returns thumbnails of each image, overlaid with the maps of these classes on a common scale.

        The lists are empty for a network without maps.
        """
        if not self.has_maps or not indices:
            return [[] for _ in indices]
        urls = []
        for index, maps in zip(indices, self.maps(indices, classes), strict=True):
            image, canvas = self._thumbnail(index)
            highest = float(np.nan_to_num(maps).max())
            overlaid = (
                over_center_crop(image, each, canvas, self._stride, self._origin, highest=highest)
                for each in maps
            )
            urls.append([as_url(each, _JPEG_QUALITY) for each in overlaid])
        return urls

    def _forward(
        self, indices: Sequence[int], classes: Sequence[Sequence[int]]
    ) -> Iterator[tuple[Any, Any]]:
        """Yields maps and features of each batch."""
        size = self._batch_size

        def batches() -> Iterator[tuple[int, HostBatch]]:
            for first in range(0, len(indices), size):
                chosen = indices[first : first + size]
                crops = np.stack([self._center_crop(i) for i in chosen])
                wanted = np.zeros((size, _MAPS), np.int32)
                for row, of_image in enumerate(classes[first : first + size]):
                    wanted[row, : len(of_image)] = of_image
                yield len(chosen), {"image": padded(crops, size), "classes": wanted}

        for count, made in stream(self._run, batches(), self._mesh):
            yield jax.tree.map(lambda rows, count=count: rows[:count], made)

    def _thumbnail(self, index: int) -> tuple[Image, Canvas]:
        """Returns a smaller version of an image, and the canvas of the image itself."""
        if index not in self._thumbnails:
            data = self._data
            image = decode(
                self._encoded(index), cut_bottom=data.cut_bottom, max_pixels=data.max_pixels
            )
            canvas = Canvas.of(data, *image.shape[:2])
            self._thumbnails[index] = shrunk(image, _LONGER_SIDE), canvas
        return self._thumbnails[index]

    def _center_crop(self, index: int) -> Image:
        return test_crops(self._encoded(index), self._data, 1, self._padding)[0]

    def _encoded(self, index: int) -> bytes:
        return self._source[int(self.evaluation.predictions.indices[index])].encoded_image


def _maps_and_features(outputs: Outputs, batch: DeviceBatch) -> tuple[Any, jax.Array]:
    maps = None if outputs.maps is None else maps_of(outputs.maps, batch["classes"])
    return maps, outputs.features

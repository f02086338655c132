"""Maps and features of a few pictures: what is too much to keep of all of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from fgr_jax.data import images
from fgr_jax.distributed import batch_sharding, data_mesh, replicated
from fgr_jax.evaluate import measures
from fgr_jax.evaluate.evaluated_run import EvaluatedRun
from fgr_jax.inference.heatmaps import over_center_crop
from fgr_jax.models.network import Network, forward
from fgr_jax.report.pictures import as_jpeg, smaller


class Viewer:
    """Shows single pictures of an evaluated run to its network, on this process's devices alone.

    Pictures are named by their index in the run's predictions.
    """

    def __init__(self, evaluated: EvaluatedRun, mesh: Mesh):
        self.evaluated = evaluated
        evaluation = evaluated.evaluation
        probabilities = measures.probabilities(evaluation.predictions.scores)
        labels = evaluation.predictions.shown.label
        # Of the true class, [N].
        self.true_probabilities = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
        ours = [each for each in mesh.devices.flat if each.process_index == jax.process_index()]
        self._mesh = data_mesh(ours)
        # As many for each device as in a batch of the run, spread over all devices.
        self._batch_size = -(-evaluated.run.config.batch_size // mesh.size) * len(ours)
        self._variables = jax.device_put(
            jax.device_get(evaluated.trained.variables), replicated(self._mesh)
        )
        self._look = _compiled(evaluated.trained.network)
        self._small: dict[int, images.Image] = {}  # those that were shown

    def maps(
        self, pictures: Sequence[int], classes: Sequence[tuple[int, int]]
    ) -> npt.NDArray[np.float32]:
        """The maps of two classes in each picture, `[n, 2, H, W]`."""
        return np.concatenate([maps for maps, _ in self._looks(pictures, classes)])

    def features(self, pictures: Sequence[int]) -> npt.NDArray[np.float32]:
        """What the maps are made of, averaged over space, `[n, D]`."""
        any_classes = [(0, 0)] * len(pictures)
        return np.concatenate([pooled for _, pooled in self._looks(pictures, any_classes)])

    def picture(self, index: int) -> str:
        """The address of a picture, made small."""
        return as_jpeg(self._smaller(index))

    def heat_maps(self, index: int, maps: npt.NDArray[np.float32]) -> list[str]:
        """The addresses of a picture with each of K maps `[K, H, W]` over it, on one scale."""
        data, stride = self.evaluated.run.config.data, self.evaluated.trained.network.stride
        picture, highest = self._smaller(index), float(np.nan_to_num(maps).max())
        return [
            as_jpeg(
                over_center_crop(
                    picture,
                    each,
                    resize=data.resize,
                    crop_size=data.crop,
                    stride=stride,
                    highest=highest,
                )
            )
            for each in maps
        ]

    def _looks(
        self, pictures: Sequence[int], classes: Sequence[tuple[int, int]]
    ) -> Iterator[list[npt.NDArray[np.float32]]]:
        """[maps, features] of every batch."""
        data, size = self.evaluated.run.config.data, self._batch_size
        for first in range(0, len(pictures), size):
            crops = [
                images.center_crop(self._decode(index), data.resize, data.crop)
                for index in pictures[first : first + size]
            ]
            wanted = np.asarray(classes[first : first + size], np.int32)
            missing = size - len(crops)
            batch = (
                np.pad(np.stack(crops), ((0, missing), (0, 0), (0, 0), (0, 0))),
                np.pad(wanted, ((0, missing), (0, 0))),
            )
            made = self._look(self._variables, *jax.device_put(batch, batch_sharding(self._mesh)))
            yield [np.asarray(part)[: len(crops)] for part in made]

    def _smaller(self, index: int) -> images.Image:
        if index not in self._small:
            self._small[index] = smaller(self._decode(index))
        return self._small[index]

    def _decode(self, index: int) -> images.Image:
        """A picture as it is stored, without what is cut off its bottom."""
        in_split = int(self.evaluated.evaluation.predictions.indices[index])
        encoded = self.evaluated.source[in_split].encoded_image
        return images.decode(encoded, cut_bottom=self.evaluated.run.config.data.cut_bottom)


def _compiled(network: Network) -> Any:
    @jax.jit
    def look(variables: Any, crops: jax.Array, classes: jax.Array) -> tuple[jax.Array, jax.Array]:
        outputs = forward(network, variables, crops)
        maps: Any = outputs.maps
        chosen = jnp.take_along_axis(maps, classes[:, None, None, :], axis=-1)
        return jnp.moveaxis(chosen, -1, 1), outputs.features

    return look

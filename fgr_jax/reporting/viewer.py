"""Maps and features of a few pictures: what is too much to keep of all of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from fgr_jax import images
from fgr_jax.devices import batch_sharding, data_mesh, replicated
from fgr_jax.diversification import class_scores
from fgr_jax.evaluating.evaluated_run import EvaluatedRun
from fgr_jax.models.cam_network import CamNetwork
from fgr_jax.reporting.pictures import heat_map
from fgr_jax.training.step import normalise


class Seen(NamedTuple):
    """What the network made of the centre crop of n pictures."""

    maps: npt.NDArray[np.float32]  # of two classes, [n, 2, H, W]
    features: npt.NDArray[np.float32]  # what the maps are made of, averaged over space, [n, D]


class Viewer:
    """Shows single pictures of an evaluated run to its network, on this process's devices alone."""

    def __init__(self, evaluated: EvaluatedRun):
        self.evaluated = evaluated
        self._mesh = data_mesh(jax.local_devices())
        self._variables = jax.device_put(
            jax.device_get(evaluated.trained.variables), replicated(self._mesh)
        )
        self._look = _compiled(evaluated.trained.network)

    def look(self, pictures: Sequence[int], classes: Sequence[tuple[int, int]]) -> Seen:
        """Runs the network.

        Args:
          pictures: which, as indices into the predictions, at least one.
          classes: of each picture the two classes whose maps are wanted.
        """
        config = self.evaluated.run.config
        data, size = config.data, -(-config.batch_size // self._mesh.size) * self._mesh.size
        offset = images.centre_offset(data.resize, data.crop)
        seen = []
        for first in range(0, len(pictures), size):
            crops = [
                images.resize_and_crop(self.picture(index), data.resize, offset, offset, data.crop)
                for index in pictures[first : first + size]
            ]
            wanted = np.asarray(classes[first : first + size], np.int32)
            missing = size - len(crops)
            batch = (
                np.pad(np.stack(crops), ((0, missing), (0, 0), (0, 0), (0, 0))),
                np.pad(wanted, ((0, missing), (0, 0))),
            )
            made = self._look(self._variables, *jax.device_put(batch, batch_sharding(self._mesh)))
            seen.append([np.asarray(part)[: len(crops)] for part in made])
        return Seen(*(np.concatenate(parts) for parts in zip(*seen, strict=True)))

    def picture(self, index: int) -> images.Image:
        """A picture as it is stored, decoded, without what is cut off its bottom."""
        in_split = int(self.evaluated.evaluation.predictions.indices[index])
        encoded = self.evaluated.source[in_split].encoded_image
        return images.decode(encoded, cut_bottom=self.evaluated.run.config.data.cut_bottom)

    def heat_map(self, index: int, activation: npt.NDArray[np.float32]) -> str:
        """The address of a picture with a map `[H, W]` over it."""
        stride = self.evaluated.trained.network.stride
        return heat_map(self.picture(index), activation, self.evaluated.run.config.data, stride)


def _compiled(network: CamNetwork) -> Any:
    @jax.jit
    def look(variables: Any, crops: jax.Array, classes: jax.Array) -> tuple[jax.Array, jax.Array]:
        maps: Any
        maps, kept = network.apply(
            variables, normalise(crops), train=False, mutable=["intermediates"]
        )
        last_stage = kept["intermediates"]["backbone"]["layer4"][0]
        chosen = jnp.take_along_axis(maps, classes[:, None, None, :], axis=-1)
        return jnp.moveaxis(chosen, -1, 1), class_scores(last_stage)

    return look

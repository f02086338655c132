"""DFL-CNN: a bank of filters for discriminative patches, ten for each class.

Wang, Morariu and Davis, "Learning a Discriminative Filter Bank within a CNN for Fine-grained
Recognition", CVPR 2018, §3. With E the output of the stage before the last, F that of the last, and k
filters for each of the C classes:

    G = W·mean(F) + b                                         (global stream)
    r = max over the cells of the k·C filters' responses to E,  P = V·r + c    (patches)
    S_c = mean of r over the k filters of class c             (side branch: filters are supervised)

The scores are G + P + 0.1·S, and each of the three has a loss, with the same weights.

With `network.head_from_features`, the filters are first computed from E of the training images: of each
class, the k centers of the clusters of its strongest cells (`clustering`). All cells are divided by
their norm before.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.heads.clustering import centers, moments, strongest_cells, whitened
from fgr_jax.models.heads.layers import LINEAR_INIT, linear, unit_norm

_WEIGHTS = {"global": 1.0, "patches": 1.0, "side": 0.1}
# Of the filters' initialization. The paper states none of them.
_CELLS = 10  # of an image, at most
_LEAST_NORM = 0.1  # of a cell, relative to the largest of its image
_RIDGE = 0.01


class DflCnnHead(nn.Module):
    """Maps the features of the last two stages to the scores of three branches and their sum.

    Attributes:
      num_classes: C.
      filters: k, their number for each class.
      dtype: dtype of the filters' convolution; all that follows is in at least float32.
    """

    num_classes: int
    filters: int = 10
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    takes_earlier: ClassVar[bool] = True
    several_scores: ClassVar[bool] = True

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool, earlier: jax.Array) -> Outputs:
        """Maps features `[B, h, w, D]` to outputs; their `branches` are three scores `[B, C]`.

        Args:
          features: of the last stage.
          train: whether this is a step of training.
          earlier: the features `[B, H, W, E]` that the filters are applied to.
        """
        del train
        filters = Convolution(
            self.filters * self.num_classes,
            (1, 1),
            kernel_init=LINEAR_INIT,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="filters",
        )
        average = class_scores(features)
        largest = at_least_float32(jnp.max(filters(earlier), axis=(1, 2)))
        sizes = {"param_dtype": self.param_dtype}
        branches = {
            "global": linear(self.num_classes, name="linear", **sizes)(average),
            "patches": linear(self.num_classes, name="of_patches", **sizes)(largest),
            "side": largest.reshape(-1, self.num_classes, self.filters).mean(axis=-1),
        }
        scores = _weighted(lambda name: branches[name])
        return Outputs(scores, average, branches=branches)

    def objective(self, base: Objective) -> Objective:
        """Returns the weighted sum of an objective of the three branches' scores."""

        def losses(outputs: Outputs, targets: Targets, extra: Extra) -> jax.Array:
            branches = outputs.branches
            assert branches is not None
            return _weighted(
                lambda name: base.losses(outputs._replace(scores=branches[name]), targets, extra)
            )

        return base._replace(losses=losses)

    def observe(self, features: jax.Array, mask: jax.Array, *, earlier: jax.Array) -> Any:
        """Returns the strongest cells of each image, `[B, N, E]`, and the moments of all cells."""
        del features
        cells, is_chosen = strongest_cells(earlier, _CELLS, _LEAST_NORM)
        everywhere = unit_norm(at_least_float32(earlier)).reshape(-1, earlier.shape[-1])
        counts = jnp.repeat(mask, earlier.shape[1] * earlier.shape[2]).astype(everywhere.dtype)
        kept = {"cells": unit_norm(cells), "is_chosen": is_chosen & mask[:, None]}
        return kept, moments(everywhere, counts)

    def for_class(self, by_image: Any, generator: np.random.Generator) -> Any:
        """Returns the centers of the clusters of a class, `[k, E]`."""
        points = by_image["cells"][by_image["is_chosen"]].astype(np.float64)
        seed = int(generator.integers(2**31))
        return centers(points, self.filters, seed) if len(points) else None

    def initialized(self, params: Any, by_class: Mapping[int, Any], sums: Any) -> Any:
        """Returns the parameters with whitened centers for filters; a class without keeps its own."""
        kernel, bias = (np.array(params["filters"][name]) for name in ("kernel", "bias"))
        for label, of_class in by_class.items():
            own = slice(label * self.filters, (label + 1) * self.filters)
            kernel[0, 0, :, own], bias[own] = whitened(of_class, sums, _RIDGE).T, 0
        return {**params, "filters": {"kernel": kernel, "bias": bias}}


def _weighted(of_branch: Callable[[str], jax.Array]) -> jax.Array:
    """Returns the weighted sum of an array for each branch."""
    first, *others = (weight * of_branch(name) for name, weight in _WEIGHTS.items())
    return functools.reduce(jnp.add, others, first)


def from_config(network: Network, num_classes: int) -> DflCnnHead:
    """Builds the head for the config's section `network`."""
    return DflCnnHead(num_classes, dtype=jnp.dtype(network.compute_dtype))

"""The head of L-GM: the CAM head whose weights are the classes' means in feature space."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses.interface import Outputs
from fgr_jax.losses.lgm import gaussian_bias
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.heads.layers import LINEAR_INIT


class GaussianHead(CamHead):
    """Maps features to maps of μ_c·x; with the bias −½‖μ_c‖², scores are those of a Gaussian mixture.

    In training the bias is computed from the means and added to the average of the maps, not to the maps
    themselves, so that the block does not suppress it. At test time this is the CAM head, with the
    parameter `bias` that `losses.lgm.with_gaussian_bias` sets.
    """

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        """Maps features `[B, h, w, D]` to outputs with `offset` and `class_weights` in training."""
        shape = (1, 1, features.shape[-1], self.num_classes)
        kernel = self.param("kernel", LINEAR_INIT, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,), self.param_dtype)
        params = {"kernel": kernel} if train else {"kernel": kernel, "bias": bias}
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = Convolution(self.num_classes, (1, 1), use_bias=not train, **dtypes, parent=None)
        maps: Any = conv.apply({"params": params}, features)
        maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
        scores, pooled = class_scores(maps), class_scores(features)
        if not train:
            return Outputs(scores, pooled, maps)
        # Sliced separately for each use, which fixes the order in which the gradients are added up.
        offset = gaussian_bias(kernel[0, 0].T)
        return Outputs(scores + offset, pooled, maps, offset, kernel[0, 0].T)


def from_config(network: Network, num_classes: int) -> GaussianHead:
    """Builds the head for the config's section `network`."""
    return GaussianHead(num_classes, dtype=jnp.dtype(network.compute_dtype))

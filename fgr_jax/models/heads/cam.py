"""The paper's head: a 1×1 convolution to class activation maps, and their average (figure 2)."""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.heads.layers import LINEAR_INIT


class CamHead(nn.Module):
    """Maps features to class activation maps, whose average over space is the scores.

    There is no pooling before the classifier and no fully connected layer: the block needs the maps.

    Attributes:
      num_classes: C.
      dtype: dtype of the convolution; maps and scores are in at least float32.
    """

    cellwise: ClassVar[bool] = True

    num_classes: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        """Maps features `[B, h, w, D]` to scores `[B, C]`, features `[B, D]` and maps `[B, h, w, C]`."""
        del train
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = Convolution(self.num_classes, (1, 1), kernel_init=LINEAR_INIT, **dtypes)
        nn.share_scope(self, conv)
        maps = conv(features)
        maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
        return Outputs(class_scores(maps), class_scores(features), maps)


def from_config(network: Network, num_classes: int) -> CamHead:
    """Builds the head for the config's section `network`."""
    return CamHead(num_classes, dtype=jnp.dtype(network.compute_dtype))

"""Deep-TEN: the residuals of features to learned codewords.

Zhang, Xue and Dana, "Deep TEN: Texture Encoding Network", CVPR 2017, table 2: features are reduced to
128 channels and encoded with 32 codewords (`encoding.py`); the encodings together are divided by their
norm, and the scores are linear in them. BatchNorm and ReLU after the reduction are those of the authors'
code.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.heads.encoding import Encoding
from fgr_jax.models.heads.layers import Reduction, cells, linear, unit_norm


class DeepTenHead(nn.Module):
    """Maps features to scores by way of their encodings.

    Attributes:
      num_classes: C.
      channels: the number of channels that features are reduced to.
      codewords: K.
      norm_group: as for `BatchNorm`.
      dtype: dtype of the reduction; all that follows is in at least float32.
    """

    num_classes: int
    channels: int = 128
    codewords: int = 32
    norm_group: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        """Maps features `[B, h, w, D]` to scores `[B, C]` and their average `[B, D]`."""
        reduction = Reduction(
            self.channels, self.norm_group, self.dtype, self.param_dtype, name="reduction"
        )
        x = cells(reduction(features, train=train))
        encodings = Encoding(self.codewords, self.param_dtype, name="encoding")(x)
        vector = unit_norm(encodings.reshape(-1, self.codewords * self.channels))
        classify = linear(self.num_classes, param_dtype=self.param_dtype, name="linear")
        return Outputs(classify(vector), class_scores(features))


def from_config(network: Network, num_classes: int) -> DeepTenHead:
    """Builds the head for the config's section `network`."""
    dtype = jnp.dtype(network.compute_dtype)
    return DeepTenHead(num_classes, norm_group=network.norm_group, dtype=dtype)

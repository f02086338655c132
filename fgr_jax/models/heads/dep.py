"""DEP: the outer product of an encoding of texture and the average of the features.

Xue, Zhang and Dana, "Deep Texture Manifold for Ground Terrain Recognition", CVPR 2018, §3.1: features
are encoded with 8 codewords (`encoding.py`) and mapped to a vector a of 64 numbers, their average is
mapped to a vector b of 64, and baᵀ is mapped to 128 numbers, in which the scores are linear. BatchNorm
before the encoding and on b, and the divisions by norms, are those of the authors' code.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.heads.encoding import Encoding
from fgr_jax.models.heads.layers import cells, linear, normalized, unit_norm


class DepHead(nn.Module):
    """Maps features to scores by way of their encodings and their average.

    Attributes:
      num_classes: C.
      codewords: K.
      factors: the number of entries of each of the two vectors that are multiplied.
      embedded: the number of entries of the vector that their product is mapped to.
      norm_group: as for `BatchNorm`.
      dtype: dtype of the first BatchNorm; all that follows is in at least float32.
    """

    num_classes: int
    codewords: int = 8
    factors: int = 64
    embedded: int = 128
    norm_group: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        """Maps features `[B, h, w, D]` to scores `[B, C]` and their average `[B, D]`."""
        average = at_least_float32(class_scores(features))
        norms = {"train": train, "param_dtype": self.param_dtype}
        sizes = {"param_dtype": self.param_dtype}

        x = normalized(self.norm_group, features, name="norm", dtype=self.dtype, **norms)
        encodings = Encoding(self.codewords, self.param_dtype, name="encoding")(cells(x))
        texture = unit_norm(encodings.reshape(-1, self.codewords * features.shape[-1]))
        texture = linear(self.factors, name="of_texture", **sizes)(texture)

        place = linear(self.factors, name="of_average", **sizes)(average)
        place = normalized(
            self.norm_group, place, name="norm_of_average", dtype=place.dtype, **norms
        )

        products = place[:, :, None] * texture[:, None, :]
        products = unit_norm(products.reshape(-1, self.factors**2))
        embedding = unit_norm(linear(self.embedded, name="of_products", **sizes)(products))
        return Outputs(linear(self.num_classes, name="linear", **sizes)(embedding), average)


def from_config(network: Network, num_classes: int) -> DepHead:
    """Builds the head for the config's section `network`."""
    dtype = jnp.dtype(network.compute_dtype)
    return DepHead(num_classes, norm_group=network.norm_group, dtype=dtype)

"""B-CNN: bilinear pooling, the average of the outer products of the features with themselves.

Lin, RoyChowdhury and Maji, "Bilinear CNN Models for Fine-grained Visual Recognition", ICCV 2015, with
both streams the same. With X `[N, d]` the reduced features of the N cells of an image:

    x = vec(XᵀX / N),  y = sign(x)·√|x|,  z = y / ‖y‖₂        (§3)

The scores are linear in z. The paper sums over the cells, which the division by ‖y‖₂ makes the same.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.heads.layers import EXACT, LINEAR_INIT, cells, linear, unit_norm

# In the gradient of the square root alone, as in the authors' code: it is infinite at 0.
_THRESHOLD = 1e-8


class BcnnHead(nn.Module):
    """Maps features to scores by way of their products, averaged over space.

    Attributes:
      num_classes: C.
      channels: d, the number of channels that features are reduced to.
      dtype: dtype of the reduction; all that follows is in at least float32.
    """

    num_classes: int
    channels: int = 256
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        """Maps features `[B, h, w, D]` to scores `[B, C]` and their average `[B, D]`."""
        del train
        reduced = Convolution(
            self.channels,
            (1, 1),
            kernel_init=LINEAR_INIT,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="reduction",
        )(features)
        x = cells(reduced)
        products = jnp.einsum("bni,bnj->bij", x, x, precision=EXACT) / x.shape[1]
        pooled = unit_norm(signed_square_root(products).reshape(-1, self.channels**2))
        classify = linear(self.num_classes, param_dtype=self.param_dtype, name="linear")
        return Outputs(classify(pooled), class_scores(features))


@jax.custom_jvp
def signed_square_root(x: jax.Array) -> jax.Array:
    """Computes sign(x)·√|x|, with the derivative ½/√(|x| + 10⁻⁸)."""
    return jnp.sign(x) * jnp.sqrt(jnp.abs(x))


@signed_square_root.defjvp
def _signed_square_root_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    return signed_square_root(x), tangent / (2 * jnp.sqrt(jnp.abs(x) + _THRESHOLD))


def from_config(network: Network, num_classes: int) -> BcnnHead:
    """Builds the head for the config's section `network`."""
    return BcnnHead(num_classes, dtype=jnp.dtype(network.compute_dtype))

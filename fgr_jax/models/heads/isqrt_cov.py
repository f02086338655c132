"""iSQRT-COV: the square root of the features' covariance, by Newton–Schulz iterations.

Li, Xie, Wang and Gao, "Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix
Square Root Normalization", CVPR 2018. With X `[N, d]` the reduced features of the N cells of an image:

    Σ = Xᵀ·Ī·X,  Ī = (I − 11ᵀ/N)/N                          (covariance, §3.1)
    A = Σ / tr Σ                                              (pre-normalization, equation 5)
    Y₀ = A, Z₀ = I
    Yₖ = ½·Yₖ₋₁·(3I − Zₖ₋₁Yₖ₋₁),  Zₖ = ½·(3I − Zₖ₋₁Yₖ₋₁)·Zₖ₋₁   (Newton–Schulz, equation 4)
    C = √tr Σ · Y₅                                            (post-compensation, equation 7)

The scores are linear in the upper triangle of C.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.errors import UserError
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.heads.layers import EXACT, Reduction, cells, linear


class IsqrtCovHead(nn.Module):
    """Maps features to scores by way of the square root of their covariance.

    Attributes:
      num_classes: C.
      channels: d, the number of channels that features are reduced to.
      iterations: the number of Newton–Schulz steps.
      norm_group: as for `BatchNorm`.
      dtype: dtype of the reduction; all that follows is in at least float32.
    """

    num_classes: int
    channels: int = 256
    iterations: int = 5
    norm_group: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        """Maps features `[B, h, w, D]` to scores `[B, C]` and their average `[B, D]`.

        Raises:
          UserError: there is one cell, whose covariance is 0.
        """
        if features.shape[1] * features.shape[2] == 1:
            raise UserError(
                "--config.network.head=isqrt_cov: needs the covariance of several cells, and the "
                "features have one: take a larger data.crop or a smaller network.pool"
            )
        reduction = Reduction(
            self.channels, self.norm_group, self.dtype, self.param_dtype, name="reduction"
        )
        root = matrix_square_root(
            covariance(cells(reduction(features, train=train))), self.iterations
        )
        classify = linear(self.num_classes, param_dtype=self.param_dtype, name="linear")
        return Outputs(classify(upper_triangle(root)), class_scores(features))


def covariance(x: jax.Array) -> jax.Array:
    """Computes the covariance `[B, d, d]` of the cells `[B, N, d]` of each image, divided by N."""
    x -= jnp.mean(x, axis=1, keepdims=True)
    return jnp.einsum("bni,bnj->bij", x, x, precision=EXACT) / x.shape[1]


def matrix_square_root(matrices: jax.Array, iterations: int) -> jax.Array:
    """Approximates the square roots of positive semidefinite matrices `[B, d, d]`; that of 0 is 0."""
    trace = jnp.trace(matrices, axis1=1, axis2=2)[:, None, None]
    trace = jnp.where(trace == 0, 1, trace)  # features that are the same everywhere
    identity = jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
    # The first step, with Z = I.
    a = matrices / trace
    z = (3 * identity - a) / 2
    y = jnp.matmul(a, z, precision=EXACT)
    for step in range(1, iterations):
        t = (3 * identity - jnp.matmul(z, y, precision=EXACT)) / 2
        y = jnp.matmul(y, t, precision=EXACT)
        if step < iterations - 1:
            z = jnp.matmul(t, z, precision=EXACT)
    return jnp.sqrt(trace) * y


@jax.custom_vjp
def upper_triangle(matrices: jax.Array) -> jax.Array:
    """Returns the upper triangles of `[B, d, d]`, row by row, `[B, d(d + 1)/2]`.

    Its gradient is a look-up too, and not a scatter, which has no fixed order on GPUs.
    """
    size = matrices.shape[-1]
    rows, columns = np.triu_indices(size)
    flat = matrices.reshape(-1, size * size)
    return jnp.take(flat, rows * size + columns, axis=1, mode="clip")


def _upper_triangle_forward(matrices: jax.Array) -> tuple[jax.Array, None]:
    return upper_triangle(matrices), None


def _upper_triangle_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    size = int(np.sqrt(2 * gradient.shape[1]))
    is_upper = np.triu(np.ones((size, size), np.bool_))
    places = np.cumsum(is_upper.ravel()) - 1
    entries = jnp.take(gradient, places, axis=1, mode="clip")
    return (jnp.where(is_upper, entries.reshape(-1, size, size), 0),)


upper_triangle.defvjp(_upper_triangle_forward, _upper_triangle_backward)


def from_config(network: Network, num_classes: int) -> IsqrtCovHead:
    """Builds the head for the config's section `network`."""
    dtype = jnp.dtype(network.compute_dtype)
    return IsqrtCovHead(num_classes, norm_group=network.norm_group, dtype=dtype)

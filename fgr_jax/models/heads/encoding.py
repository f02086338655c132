"""The encoding layer of Deep-TEN and DEP: residuals to learned codewords, softly assigned.

Zhang, Xue and Dana, "Deep TEN: Texture Encoding Network", CVPR 2017, §3. With x_i the features of
cell i, c_k the codewords and s_k their smoothing factors:

    r_ik = x_i − c_k
    a_ik = exp(−s_k‖r_ik‖²) / Σ_j exp(−s_j‖r_ij‖²)           (equation 4)
    e_k = Σ_i a_ik·r_ik                                       (equation 2)
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.models.heads.layers import EXACT


class Encoding(nn.Module):
    """Encodes the cells of an image, whatever their order and number, as one vector for each codeword.

    Codewords start from U(−1/√(KD), 1/√(KD)) and smoothing factors from U(0, 1), as in the authors'
    code.

    Attributes:
      codewords: K, their number.
    """

    codewords: int
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps the cells `[B, N, D]` to encodings `[B, K, D]`."""
        count, channels = self.codewords, x.shape[-1]
        limit = (count * channels) ** -0.5

        def around_zero(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return jax.random.uniform(key, shape, dtype, -limit, limit)

        words = self.param("codewords", around_zero, (count, channels), self.param_dtype)
        smoothing = self.param("smoothing", _from_0_to_1, (count,), self.param_dtype)
        # ‖x − c‖² = ‖x‖² − 2x·c + ‖c‖²: the residuals themselves would be K times the features.
        products = jnp.einsum("bnd,kd->bnk", x, words, precision=EXACT)
        lengths = jnp.sum(x * x, axis=-1, keepdims=True) + jnp.sum(words * words, axis=-1)
        assigned = jax.nn.softmax(-smoothing * (lengths - 2 * products), axis=-1)
        sums = jnp.einsum("bnk,bnd->bkd", assigned, x, precision=EXACT)
        return sums - jnp.sum(assigned, axis=1)[..., None] * words


def _from_0_to_1(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jax.random.uniform(key, shape, dtype)

"""Products of the channels of cells or tokens with a matrix."""

from typing import Any

import flax.linen as nn
import jax


def channel_product(x: jax.Array, kernel: jax.Array, *, precision: Any = None) -> jax.Array:
    """Multiplies the channels of `[..., C]` by `[C, F]` to `[..., F]`.

    Cells and tokens are the rows of one matrix, so that the gradient of the kernel is a product of two
    matrices. Over several axes XLA would transpose the gradient of the output first, which takes longer
    on CPUs than the product.
    """
    rows = jax.lax.dot(x.reshape(-1, x.shape[-1]), kernel, precision=precision)
    return rows.reshape(*x.shape[:-1], kernel.shape[-1])


def _dot_general(
    x: jax.Array, kernel: jax.Array, dimensions: Any, precision: Any = None, **options: Any
) -> jax.Array:
    """Has the signature of `jax.lax.dot_general`, as `flax.linen.Dense` calls it."""
    del dimensions, options  # over the last axis of x and the first of the kernel
    return channel_product(x, kernel, precision=precision)


class Dense(nn.Dense):
    """`flax.linen.Dense`, computed by `channel_product`."""

    dot_general: Any = _dot_general

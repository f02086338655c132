"""Sampling images by attention: places of high attention are enlarged (TASN, §3.1 and §3.2)."""

import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.losses.ce import at_least_float32
from fgr_jax.models.heads.layers import EXACT, cells, interpolation

_ROUNDS = 5  # of `limited`, in the authors' code


def relation(features: jax.Array, scale: float) -> jax.Array:
    """Returns softmax(softmax(scale·X)·Xᵀ) of features X `[D, N]`, where N = h·w: how channels relate.

    Args:
      features: `[B, h, w, D]`.
      scale: of the features in the softmax over the cells.

    Returns:
      `[B, D, D]`, whose rows have sums of 1. Its product with X is the attention maps.
    """
    x = cells(features)
    spatial = jax.nn.softmax(scale * x, axis=1)
    return jax.nn.softmax(jnp.einsum("bnd,bne->bde", spatial, x, precision=EXACT), axis=-1)


def attention(features: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns a weighted sum of the channels as a map `[B, h, w]`, at least 0.

    Args:
      features: `[B, h, w, D]`.
      weights: `[B, D]`, such as a row of `relation`.
    """
    x = at_least_float32(features)
    found = jnp.einsum("bhwd,bd->bhw", x, weights.astype(x.dtype), precision=EXACT)
    return jnp.maximum(found, 0)


def sampled(images: jax.Array, attention: jax.Array, size: int, density: float) -> jax.Array:
    """Samples images on a grid whose rows and columns are dense where there is attention.

    Args:
      images: `[B, H, W, 3]`.
      attention: maps `[B, h, w]`, at least 0; they are resized to the images.
      size: S, of the sides of the result.
      density: the largest number of samples of a pixel, relative to S / H.

    Returns:
      `[B, S, S, 3]`.
    """
    batch, height, width, _ = images.shape
    resized = jax.image.resize(attention, (batch, height, width), "linear")
    across = (shares(jnp.max(resized, axis=2)), shares(jnp.max(resized, axis=1)))
    rows, columns = (places(each, size) for each in limited(*across, size, density))
    return resampled(images, rows, columns)


def shares(values: jax.Array) -> jax.Array:
    """Divides values `[B, n]` by their sum; zeros stay."""
    total = jnp.sum(values, axis=-1, keepdims=True)
    return values / jnp.where(total == 0, 1, total)  # not `> 0`: NaNs must propagate


def limited(
    rows: jax.Array, columns: jax.Array, size: int, density: float
) -> tuple[jax.Array, jax.Array]:
    """Limits how many of `size` samples fall on a pixel, as the authors' code does.

    In each of five rounds, both are cut at the lower of their two maxima, and what is cut off is spread
    evenly over all pixels.

    Args:
      rows: shares `[B, H]` with sums of 1, or zeros, in place of which the samples are spread evenly.
      columns: likewise, `[B, W]`.
      size: the number of samples, S.
      density: the limit in the first round, relative to S / H and S / W.

    Returns:
      The number of samples of each row and column.
    """
    rows, columns = rows * size, columns * size
    for number in range(_ROUNDS):
        limit = jnp.minimum(jnp.max(rows, axis=-1), jnp.max(columns, axis=-1))
        if number == 0:
            limit = jnp.minimum(limit, density * size / rows.shape[-1])
        rows, columns = (_cut(each, limit[:, None], size) for each in (rows, columns))
    return rows, columns


def _cut(values: jax.Array, limit: jax.Array, total: int) -> jax.Array:
    cut = jnp.minimum(values, limit)
    return cut + (total - jnp.sum(cut, axis=-1, keepdims=True)) / values.shape[-1]


def places(densities: jax.Array, size: int) -> jax.Array:
    """Returns where `size` samples are, so that pixels have samples in proportion to their densities.

    They are the places at which the cumulative sum, linear within a pixel, is (o + ½) / size of the
    total, for o = 0, 1, … Pixel i is centered at i.

    Args:
      densities: `[B, n]`, more than 0.
      size: S.

    Returns:
      `[B, S]`, in (−½, n − ½).
    """
    # A product with a matrix, which ONNX files and TPUs take better than `jnp.cumsum`.
    count = densities.shape[-1]
    is_before = np.triu(np.ones((count, count), densities.dtype))
    end = jnp.matmul(densities, is_before, precision=EXACT)
    targets = (jnp.arange(size) + 0.5) / size * end[:, -1:]
    # The share of each pixel that is passed.
    begin = (end - densities)[:, None]
    passed = jnp.clip((targets[..., None] - begin) / densities[:, None], 0, 1)
    return jnp.sum(passed, axis=-1) - 0.5


def resampled(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Interpolates images bilinearly at a grid of places; outside, they continue as at their edges.

    Like `regions.crops_of`, it is a product with matrices of weights.

    Args:
      images: `[B, H, W, 3]`.
      rows: `[B, S]`; the first row is at 0.
      columns: `[B, T]`.

    Returns:
      `[B, S, T, 3]`.
    """
    height, width = images.shape[1:3]
    of_rows = interpolation(jnp.clip(rows, 0, height - 1), height)
    of_columns = interpolation(jnp.clip(columns, 0, width - 1), width)
    tall = jnp.einsum("bsh,bhwc->bswc", of_rows, images, precision=EXACT)
    return jnp.einsum("btw,bswc->bstc", of_columns, tall, precision=EXACT)

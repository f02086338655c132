"""The diversification block (paper §3.1, equations 1–8), as pure functions of arrays and a key.

Class activation maps are `[B, H, W, C]`: B images, H×W cells, C classes. In training, peaks and
patches of every map are scaled by α, so that the network has to find other evidence for the class.
At test time the maps are used unchanged: do not apply the block then.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fgr_jax import arguments


def suppression_mask(
    key: jax.Array, maps: ArrayLike, *, p_peak: ArrayLike, p_patch: ArrayLike, patch_size: int
) -> jax.Array:
    """Draws the cells to suppress, B of equations 1–6.

    Every image and class has its own draws: one for the peaks of its map, and one for each patch.

    Args:
      key: a `jax.random` key; the same key, shape and probabilities give the same draws.
      maps: class activation maps, `[B, H, W, C]`.
      p_peak: probability that a map's peaks are suppressed (eq. 2), in [0, 1].
      p_patch: probability that a patch is suppressed (eq. 4), in [0, 1].
      patch_size: G, the patches' height and width in cells. Where G does not divide H or W the last
        patch of a row or column is cut off at the edge.

    Returns:
      bool `[B, H, W, C]`, true where the cell is suppressed.

    Raises:
      TypeError: an argument is not a number, or patch_size not a whole one.
      ValueError: maps are not 4-dimensional, a probability is outside [0, 1], or patch_size < 1.
    """
    maps, patch_size = _checked(maps, p_peak, p_patch, patch_size)
    return _suppression_mask(key, maps, p_peak, p_patch, patch_size)


def diversify(
    key: jax.Array,
    maps: ArrayLike,
    *,
    p_peak: ArrayLike,
    p_patch: ArrayLike,
    patch_size: int,
    alpha: ArrayLike,
) -> jax.Array:
    """Scales the suppressed cells by α, M' of equation 7.

    The mask is a constant under differentiation: a suppressed cell passes α times its gradient, and
    every other cell all of it. With α = 1 the maps are returned unchanged and nothing is drawn.

    Args:
      key, maps, p_peak, p_patch, patch_size: see `suppression_mask`.
      alpha: the suppression factor, in [0, 1]; 0 removes a suppressed cell, 1 turns the block off.

    Returns:
      The maps in their own shape `[B, H, W, C]` and dtype; maps of whole numbers as float32.

    Raises:
      TypeError: as for `suppression_mask`.
      ValueError: as for `suppression_mask`, or alpha is outside [0, 1].
    """
    maps, patch_size = _checked(maps, p_peak, p_patch, patch_size)
    arguments.check_between("alpha", alpha, 0, 1)
    if not arguments.is_traced(alpha) and jnp.ndim(alpha) == 0 and alpha == 1:
        return maps
    return _diversify(key, maps, p_peak, p_patch, patch_size, alpha)


def class_scores(maps: ArrayLike) -> jax.Array:
    """Averages maps `[B, H, W, C]` over space to scores `[B, C]` (eq. 8), in at least float32."""
    maps = arguments.floats("maps", maps, "B, H, W, C")
    dtype = jnp.promote_types(maps.dtype, jnp.float32)
    return jnp.mean(maps, axis=(1, 2), dtype=dtype)


def _checked(
    maps: ArrayLike, p_peak: ArrayLike, p_patch: ArrayLike, patch_size: int
) -> tuple[jax.Array, int]:
    """Checks the arguments, and returns the maps as floats and the patch size as an int."""
    arguments.check_between("p_peak", p_peak, 0, 1)
    arguments.check_between("p_patch", p_patch, 0, 1)
    size = arguments.at_least_one("patch_size", patch_size)
    return arguments.floats("maps", maps, "B, H, W, C"), size


class Draws(NamedTuple):
    """The random part of a suppression mask. Which cells are peaks follows from the maps."""

    peaks: jax.Array  # bool `[B, 1, 1, C]`: whether a map's peaks are suppressed, eq. 2
    cells: jax.Array  # bool `[B, H, W, C]`: whether a cell that is not a peak is, eqs. 3, 4


def draw(
    key: jax.Array, shape: Sequence[int], *, p_peak: ArrayLike, p_patch: ArrayLike, patch_size: int
) -> Draws:
    """Draws what `suppression_mask` draws for maps of `shape` (B, H, W, C)."""
    p_peak, p_patch = arguments.floats("p_peak", p_peak), arguments.floats("p_patch", p_patch)
    batch, height, width, classes = shape
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    peak_key, patch_key = jax.random.split(key)
    suppress_peaks = jax.random.bernoulli(peak_key, p_peak, (batch, 1, 1, classes))
    suppress_patch = jax.random.bernoulli(patch_key, p_patch, (batch, rows, columns, classes))
    suppress_cell = jnp.broadcast_to(
        suppress_patch[:, :, None, :, None, :],
        (batch, rows, patch_size, columns, patch_size, classes),
    ).reshape(batch, rows * patch_size, columns * patch_size, classes)[:, :height, :width]
    return Draws(suppress_peaks, suppress_cell)


def suppress(maps: jax.Array, draws: Draws, alpha: ArrayLike) -> jax.Array:
    """Scales the cells of `maps` `[B, H, W, C]` that `draws` suppresses by α (eq. 7)."""
    mask = _mask(jax.lax.stop_gradient(maps), draws)
    return jnp.where(mask, jnp.asarray(alpha, maps.dtype) * maps, maps)


def _mask(maps: jax.Array, draws: Draws) -> jax.Array:
    peaks = maps == jnp.max(maps, axis=(1, 2), keepdims=True)  # eq. 1
    return jnp.where(peaks, draws.peaks, draws.cells)  # eqs. 5, 6


@functools.partial(jax.jit, static_argnames="patch_size")
def _suppression_mask(
    key: jax.Array, maps: jax.Array, p_peak: ArrayLike, p_patch: ArrayLike, patch_size: int
) -> jax.Array:
    draws = draw(key, maps.shape, p_peak=p_peak, p_patch=p_patch, patch_size=patch_size)
    return _mask(maps, draws)


@functools.partial(jax.jit, static_argnames="patch_size")
def _diversify(
    key: jax.Array,
    maps: jax.Array,
    p_peak: ArrayLike,
    p_patch: ArrayLike,
    patch_size: int,
    alpha: ArrayLike,
) -> jax.Array:
    draws = draw(key, maps.shape, p_peak=p_peak, p_patch=p_patch, patch_size=patch_size)
    return suppress(maps, draws, alpha)

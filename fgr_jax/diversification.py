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


def suppression_mask(
    key: jax.Array, maps: jax.Array, *, p_peak: float, p_patch: float, patch_size: int
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
      ValueError: maps are not 4-dimensional, a probability is outside [0, 1], or patch_size < 1.
    """
    _check(maps, p_peak, p_patch, patch_size)
    return _suppression_mask(key, maps, p_peak, p_patch, patch_size)


def diversify(
    key: jax.Array,
    maps: jax.Array,
    *,
    p_peak: float,
    p_patch: float,
    patch_size: int,
    alpha: float,
) -> jax.Array:
    """Scales the suppressed cells by α, M' of equation 7.

    The mask is a constant under differentiation: a suppressed cell passes α times its gradient, and
    every other cell all of it. With α = 1 the maps are returned unchanged and nothing is drawn.

    Args:
      key, maps, p_peak, p_patch, patch_size: see `suppression_mask`.
      alpha: the suppression factor; 0 removes a suppressed cell, 1 turns the block off.

    Returns:
      The maps in their own shape `[B, H, W, C]` and dtype.

    Raises:
      ValueError: as for `suppression_mask`.
    """
    _check(maps, p_peak, p_patch, patch_size)
    if isinstance(alpha, (int, float)) and alpha == 1:
        return maps
    return _diversify(key, maps, p_peak, p_patch, patch_size, alpha)


def class_scores(maps: jax.Array) -> jax.Array:
    """Averages maps `[B, H, W, C]` over space to scores `[B, C]` (eq. 8), in at least float32."""
    dtype = jnp.promote_types(maps.dtype, jnp.float32)
    return jnp.mean(maps, axis=(1, 2), dtype=dtype)


def _check(maps: jax.Array, p_peak: float, p_patch: float, patch_size: int) -> None:
    if maps.ndim != 4:
        raise ValueError(f"maps must be [B, H, W, C], got shape {maps.shape}")
    for name, probability in (("p_peak", p_peak), ("p_patch", p_patch)):
        # A traced probability has no value to check.
        if isinstance(probability, (int, float)) and not 0 <= probability <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {probability}")
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")


class Draws(NamedTuple):
    """The random part of a suppression mask. Which cells are peaks follows from the maps."""

    peaks: jax.Array  # bool `[B, 1, 1, C]`: whether a map's peaks are suppressed, eq. 2
    cells: jax.Array  # bool `[B, H, W, C]`: whether a cell that is not a peak is, eqs. 3, 4


def draw(
    key: jax.Array, shape: Sequence[int], *, p_peak: float, p_patch: float, patch_size: int
) -> Draws:
    """Draws what `suppression_mask` draws for maps of `shape` (B, H, W, C)."""
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


def suppress(maps: jax.Array, draws: Draws, alpha: float) -> jax.Array:
    """Scales the cells of `maps` `[B, H, W, C]` that `draws` suppresses by α (eq. 7)."""
    mask = _mask(jax.lax.stop_gradient(maps), draws)
    return jnp.where(mask, jnp.asarray(alpha, maps.dtype) * maps, maps)


def _mask(maps: jax.Array, draws: Draws) -> jax.Array:
    peaks = maps == jnp.max(maps, axis=(1, 2), keepdims=True)  # eq. 1
    return jnp.where(peaks, draws.peaks, draws.cells)  # eqs. 5, 6


@functools.partial(jax.jit, static_argnames="patch_size")
def _suppression_mask(
    key: jax.Array, maps: jax.Array, p_peak: float, p_patch: float, patch_size: int
) -> jax.Array:
    draws = draw(key, maps.shape, p_peak=p_peak, p_patch=p_patch, patch_size=patch_size)
    return _mask(maps, draws)


@functools.partial(jax.jit, static_argnames="patch_size")
def _diversify(
    key: jax.Array,
    maps: jax.Array,
    p_peak: float,
    p_patch: float,
    patch_size: int,
    alpha: float,
) -> jax.Array:
    draws = draw(key, maps.shape, p_peak=p_peak, p_patch=p_patch, patch_size=patch_size)
    return suppress(maps, draws, alpha)

"""Regions of images: anchors, the best that do not overlap, and their pixels.

Boxes are `(top, left, bottom, right)` in pixels; a box holds the rows from `top` up to, not including,
`bottom`, and likewise the columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from fgr_jax.models.heads.layers import EXACT, interpolation

Boxes = npt.NDArray[np.int32]  # [A, 4]


class Anchors(NamedTuple):
    """The anchors at the cells of one map.

    Attributes:
      stride: the number of pixels from one cell to the next; the first is centered at stride / 2.
      size: the geometric mean of an anchor's sides, in pixels, before `scales`.
      scales: factors on the size.
    """

    stride: float
    size: float
    scales: Sequence[float]


RATIOS = (0.667, 1.0, 1.5)  # width over height


def boxes_of(anchors: Anchors, rows: int, columns: int) -> Boxes:
    """Returns the boxes at the cells of a map; some reach beyond the image.

    Returns:
      `[len(scales) · 3 · rows · columns, 4]`: by scale, then ratio, then row by row.
    """
    centers = np.stack(
        np.meshgrid(
            (np.arange(rows) + 0.5) * anchors.stride,
            (np.arange(columns) + 0.5) * anchors.stride,
            indexing="ij",
        ),
        axis=-1,
    ).reshape(-1, 2)
    found = []
    for scale in anchors.scales:
        for ratio in RATIOS:
            sides = anchors.size * scale * np.array([ratio**-0.5, ratio**0.5])
            found.append(np.concatenate([centers - sides / 2, centers + sides / 2], axis=1))
    return np.floor(np.concatenate(found)).astype(np.int32)


def best_boxes(scores: jax.Array, boxes: Boxes, count: int, overlap: float) -> jax.Array:
    """Chooses boxes by their scores, of which no two overlap (non-maximum suppression).

    Args:
      scores: `[A]`.
      boxes: `[A, 4]`.
      count: the number of boxes to choose.
      overlap: the intersection over union from which on two boxes overlap.

    Returns:
      Their indices, int32 `[count]`, the highest score first; of equal scores the first box. Where all
      that remain overlap, they are chosen nevertheless.
    """
    areas = jnp.asarray(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), jnp.float32)
    corners = jnp.asarray(boxes)

    def choose(places: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        best = jnp.argmin(places)
        chosen = corners[best]
        inner = jnp.minimum(corners[:, 2:], chosen[2:]) - jnp.maximum(corners[:, :2], chosen[:2])
        shared = jnp.prod(jnp.maximum(inner, 0).astype(jnp.float32), axis=1)
        overlaps = shared >= overlap * (areas + areas[best] - shared)
        # Behind all others, and still in their order.
        places = jnp.where(overlaps & (places < _BEHIND), places + _BEHIND, places)
        return jnp.where(jnp.arange(len(boxes)) == best, 2 * _BEHIND, places), best

    # Only the order of the scores counts, so that any of them may be infinite.
    places = jnp.argsort(jnp.argsort(-scores, stable=True)).astype(jnp.int32)
    _, chosen = jax.lax.scan(choose, places, length=count)
    return chosen.astype(jnp.int32)


_BEHIND = 1 << 29  # larger than any number of boxes


def crops_of(images: jax.Array, boxes: jax.Array, size: int) -> jax.Array:
    """Cuts boxes out of images and resizes them, bilinearly and with the corners aligned.

    They are products with matrices of weights, which need no exchange between devices and have a fixed
    order of sums, as gathers do not everywhere.

    Args:
      images: `[B, H, W, 3]`, surrounded by zeros.
      boxes: int `[B, M, 4]`, in pixels of the images; they may reach beyond them.
      size: of the sides of the crops.

    Returns:
      `[B, M, size, size, 3]`.
    """
    rows, columns = (
        _weights(boxes[..., axis], boxes[..., axis + 2], size, images.shape[1 + axis])
        for axis in (0, 1)
    )
    tall = jnp.einsum("bmsh,bhwc->bmswc", rows, images, precision=EXACT)
    return jnp.einsum("bmtw,bmswc->bmstc", columns, tall, precision=EXACT)


def _weights(first: jax.Array, end: jax.Array, size: int, pixels: int) -> jax.Array:
    """Returns the weights of `pixels` pixels at `size` places from the first to the last of a part."""
    step = (end - first - 1) / (size - 1)
    places = first[..., None] + jnp.arange(size) * step[..., None]
    return interpolation(places, pixels)

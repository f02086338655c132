"""Position embeddings of ViTs for images of another size."""

import math
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def resampled(embeddings: Array, shape: tuple[int, ...]) -> Array:
    """Interpolates position embeddings to another square grid of patches, as timm does.

    The interpolation is that of timm's `resample_abs_pos_embed`: bicubic, with antialiasing where the
    new grid is smaller.

    Args:
      embeddings: `[1, P + n · n, D]` for n rows of n patches, after P = 0 or 1 embeddings of the class
        token, which are kept.
      shape: `[1, P + m · m, D]`.

    Returns:
      An array of that shape, or `embeddings` if the two shapes are not of this form.
    """
    old, new = _grid(embeddings.shape), _grid(shape)
    if embeddings.shape == shape or old is None or new is None:
        return embeddings
    (prefix, rows, channels), (new_prefix, new_rows, new_channels) = old, new
    if (prefix, channels) != (new_prefix, new_channels):
        return embeddings
    exact = embeddings.astype(np.promote_types(embeddings.dtype, np.float32))
    cells = exact[0, prefix:].reshape(rows, rows, channels)
    cells = np.asarray(jax.image.resize(cells, (new_rows, new_rows, channels), "cubic"))
    return np.concatenate([exact[:, :prefix], cells.reshape(1, -1, channels)], axis=1)


def _grid(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Returns the numbers of embeddings of the class token, of rows of patches, and of channels."""
    if len(shape) != 3 or shape[0] != 1:
        return None
    for prefix in (0, 1):
        rows = math.isqrt(max(shape[1] - prefix, 0))
        if rows > 0 and rows * rows == shape[1] - prefix:
            return prefix, rows, shape[2]
    return None

"""Class activation maps laid over the pictures they came from."""

import cv2
import numpy as np
import numpy.typing as npt

from fgr_jax.data.images import Image, center_offset

_TINY = float(np.finfo(np.float32).tiny)
_OPACITY = 0.55  # of the colors over the picture


def at_pixels(
    activation: npt.NDArray[np.floating], crop_size: int, stride: int
) -> npt.NDArray[np.float32]:
    """A map at the pixels of the network's input, bilinearly: `[H, W]` to `[crop_size, crop_size]`.

    With the network's symmetric padding, what cell (i, j) sees has its center at pixel
    (stride · i, stride · j). Stretching the map over the input instead, as is often done, shows
    everything half a cell too far to the lower right: 16 pixels of 448.

    Args:
      activation: one class's map.
      crop_size: the network's input, in pixels.
      stride: pixels from one cell to the next.
    """
    columns = np.arange(crop_size, dtype=np.float32) / stride
    return _sample(activation, columns, columns)


def over_center_crop(
    picture: Image,
    activation: npt.NDArray[np.floating],
    *,
    resize: int,
    crop_size: int,
    stride: int,
    highest: float | None = None,
) -> Image:
    """The `overlay` of a map of the picture's center crop.

    Args:
      picture: as it was decoded, or smaller, `[h, w, 3]`.
      activation: one class's map, `[H, W]`.
      resize: the side of the square that the picture was resized to, in pixels.
      crop_size: the network's input, in pixels.
      stride: pixels from one cell to the next.
      highest: as of `overlay`.
    """
    offset = center_offset(resize, crop_size)
    heat = at_pixels(activation, crop_size, stride)
    return overlay(picture, heat, resize=resize, top=offset, left=offset, highest=highest)


def overlay(
    picture: Image,
    heat: npt.NDArray[np.floating],
    *,
    resize: int,
    top: int,
    left: int,
    highest: float | None = None,
) -> Image:
    """The picture with the warm colors where `heat` is high, and gray where the network did not look.

    Args:
      picture: as it was decoded, `[h, w, 3]`.
      heat: from `at_pixels`, `[crop_size, crop_size]`; what is negative counts as 0.
      resize: the side of the square that the picture was resized to, in pixels.
      top: of the crop in that square, in pixels.
      left: of the crop in that square.
      highest: the value that gets the warmest color; None: the highest there is.
    """
    height, width = picture.shape[:2]
    crop_size = len(heat)
    # The pixels of the picture whose centers lie in the crop, and where in the crop they lie.
    rows = (np.arange(height) + 0.5) * resize / height - 0.5 - top
    columns = (np.arange(width) + 0.5) * resize / width - 0.5 - left
    seen_rows = np.flatnonzero((rows > -0.5) & (rows < crop_size - 0.5))
    seen_columns = np.flatnonzero((columns > -0.5) & (columns < crop_size - 0.5))
    sampled = _sample(heat, rows[seen_rows], columns[seen_columns])
    sampled = np.nan_to_num(sampled)  # what is no number is no reason to look
    highest = max(float(sampled.max()) if highest is None else highest, _TINY)
    levels: Image = np.round(255 * (np.clip(sampled, 0, highest) / highest)).astype(np.uint8)
    colors = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO))[:, :, ::-1]
    gray = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    shown: Image = np.repeat((gray // 2)[:, :, None], 3, axis=2)
    window = np.ix_(seen_rows, seen_columns)
    blended = (1 - _OPACITY) * picture[window] + _OPACITY * colors
    shown[window] = np.round(blended).astype(np.uint8)
    return shown


def _sample(
    values: npt.NDArray[np.floating],
    rows: npt.NDArray[np.floating],
    columns: npt.NDArray[np.floating],
) -> npt.NDArray[np.float32]:
    """`values` at every crossing of these rows and columns, bilinearly; at the edge's value beyond."""
    xs, ys = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    sampled = cv2.remap(
        values.astype(np.float32),
        xs,
        ys,
        interpolation=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(sampled, np.float32)

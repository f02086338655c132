"""Class activation maps overlaid on their images."""

import cv2
import numpy as np
import numpy.typing as npt

from fgr_jax.data.images import CENTER, Canvas, Image

_TINY = float(np.finfo(np.float32).tiny)
_OPACITY = 0.55  # of the colors over the image


def at_pixels(
    activation: npt.NDArray[np.floating], crop_size: int, stride: int, origin: float = 0.0
) -> npt.NDArray[np.float32]:
    """Interpolates a map at the pixels of the network's input: `[h, w]` to `[crop_size, crop_size]`.

    The receptive field of cell (i, j) is centered at pixel (origin + stride · i, origin + stride · j).
    With symmetric padding the origin is 0. Stretching the map over the input instead, as is often done,
    then shifts everything half a cell to the lower right: 16 pixels of 448.

    Args:
      activation: one class's map.
      crop_size: the network's input, in pixels.
      stride: pixels from one cell to the next.
      origin: the row and column of the pixel that the first cell is centered at.
    """
    columns = (np.arange(crop_size, dtype=np.float32) - np.float32(origin)) / stride
    return _sample(activation, columns, columns)


def over_center_crop(
    image: Image,
    activation: npt.NDArray[np.floating],
    canvas: Canvas,
    stride: int,
    origin: float = 0.0,
    *,
    highest: float | None = None,
) -> Image:
    """Overlays an image with a map `[h, w]` of its center crop; otherwise as `overlay`."""
    heat = at_pixels(activation, canvas.crop, stride, origin)
    return overlay(image, heat, canvas, canvas.offset(CENTER), highest=highest)


def overlay(
    image: Image,
    heat: npt.NDArray[np.floating],
    canvas: Canvas,
    offset: tuple[int, int],
    *,
    highest: float | None = None,
) -> Image:
    """Colors an image by `heat`, from dark to warm; pixels outside the crop become gray.

    Args:
      image: the decoded image, or a smaller version of it, uint8 `[H, W, 3]`.
      heat: from `at_pixels`, `[crop_size, crop_size]`; negative values and NaN count as 0.
      canvas: the canvas of the decoded image.
      offset: (top, left) of the crop on it, in pixels.
      highest: the value with the warmest color; None: the maximum.
    """
    height, width = image.shape[:2]
    crop_size, (top, left) = len(heat), offset
    # The pixels of the image whose centers lie in the crop, and their coordinates there.
    rows = canvas.vertical.in_crop(np.arange(height, dtype=float), height, top)
    columns = canvas.horizontal.in_crop(np.arange(width, dtype=float), width, left)
    inside_rows = np.flatnonzero((rows > -0.5) & (rows < crop_size - 0.5))
    inside_columns = np.flatnonzero((columns > -0.5) & (columns < crop_size - 0.5))
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
    overlaid: Image = np.repeat((gray // 2)[:, :, None], 3, axis=2)
    if not inside_rows.size or not inside_columns.size:  # in an image of a few pixels
        return overlaid
    sampled = np.nan_to_num(_sample(heat, rows[inside_rows], columns[inside_columns]))
    highest = max(float(sampled.max()) if highest is None else highest, _TINY)
    levels: Image = np.round(255 * (np.clip(sampled, 0, highest) / highest)).astype(np.uint8)
    colors = np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO))[:, :, ::-1]
    window = np.ix_(inside_rows, inside_columns)
    blended = (1 - _OPACITY) * image[window] + _OPACITY * colors
    overlaid[window] = np.round(blended).astype(np.uint8)
    return overlaid


def _sample(
    values: npt.NDArray[np.floating], rows: npt.NDArray, columns: npt.NDArray
) -> npt.NDArray[np.float32]:
    """Interpolates `values` on the grid of these coordinates, with the edge values beyond the edges."""
    xs, ys = np.meshgrid(columns.astype(np.float32), rows.astype(np.float32))
    values = values.astype(np.float32)
    sampled = cv2.remap(values, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(sampled, np.float32)

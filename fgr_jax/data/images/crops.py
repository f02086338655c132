"""Resizing and cropping of decoded images, `[H, W, 3]`."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from fgr_jax.config import Data
from fgr_jax.data.augmentation import Place
from fgr_jax.data.images import decoding
from fgr_jax.data.images.decoding import Image, decode
from fgr_jax.data.images.errors import ImageError
from fgr_jax.data.images.geometry import Canvas, test_places

Color = tuple[int, int, int]  # RGB, of 255


def resize(image: Image, height: int, width: int) -> Image:
    """Resizes the whole image to `[height, width, 3]`, whatever its aspect ratio.

    A side that shrinks is averaged over the area of each new pixel, which avoids aliasing; a side that
    grows is interpolated linearly. Of OpenCV's modes, these are the closest to torchvision's
    antialiased bilinear interpolation.
    """
    old_height, old_width = image.shape[:2]
    smaller = (min(old_width, width), min(old_height, height))
    if smaller != (old_width, old_height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if smaller != (width, height):
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return image


def crop(image: Image, top: int, left: int, size: int) -> Image:
    """Returns a view of the square `[size, size, 3]` whose upper left corner is at (top, left)."""
    return image[top : top + size, left : left + size]


def resize_and_crop(
    image: Image, new_height: int, new_width: int, top: int, left: int, crop_size: int
) -> Image:
    """Returns `crop(resize(image, new_height, new_width), top, left, crop_size)`, but faster.

    It is the same bit for bit. Where both sides grow, the area below and to the right of the crop is
    not computed.
    """
    height, width = image.shape[:2]
    shrinks = height > new_height or width > new_width
    if shrinks or (height, width) == (new_height, new_width):
        return crop(resize(image, new_height, new_width), top, left, crop_size)
    # Interpolation needs one row and one column beyond the crop's last ones.
    rows = min(height, math.ceil((top + crop_size) * height / new_height) + 1)
    columns = min(width, math.ceil((left + crop_size) * width / new_width) + 1)
    if (round(rows * new_height / height), round(columns * new_width / width)) == (rows, columns):
        # OpenCV returns an image unchanged if its size is, whatever the factors.
        return crop(resize(image, new_height, new_width), top, left, crop_size)
    scale = {"fx": new_width / width, "fy": new_height / height}
    resized = cv2.resize(image[:rows, :columns], None, **scale, interpolation=cv2.INTER_LINEAR)
    return crop(resized, top, left, crop_size)  # type: ignore[arg-type]  # uint8 as `image`


def crops_at(
    image: Image, data: Data, places: Sequence[Place], padding: Color | None = None
) -> Image:
    """Returns the crops `[V, crop, crop, 3]` at V places of the canvas of an image.

    Args:
      image: the decoded image.
      data: how it is resized and cropped.
      places: where.
      padding: the color around the image, from `Network.padding`; needed with `resize_method="pad"`.

    Raises:
      ImageError: as of `Canvas.of`.
    """
    canvas = Canvas.of(data, *image.shape[:2])
    offsets = [canvas.offset(place) for place in places]
    rows, columns = canvas.vertical, canvas.horizontal
    if len(offsets) == 1 and canvas.is_filled:
        return resize_and_crop(image, rows.size, columns.size, *offsets[0], canvas.crop)[None]
    resized = resize(image, rows.resized, columns.resized)
    if not canvas.is_filled:
        assert padding is not None
        resized = _padded(resized, canvas, padding)
    return np.stack([crop(resized, top, left, canvas.crop) for top, left in offsets])


def _padded(image: Image, canvas: Canvas, color: Color) -> Image:
    """Surrounds the resized image with a color."""
    top, left = canvas.vertical.start, canvas.horizontal.start
    bottom, right = (
        axis.size - axis.resized - axis.start for axis in (canvas.vertical, canvas.horizontal)
    )
    padded = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=color)
    return np.asarray(padded, np.uint8)


def test_crops(encoded: bytes, data: Data, crops: int, padding: Color | None) -> Image:
    """Decodes a test image and returns its crops `[V, crop, crop, 3]`, V = `crops` = 1 or 5.

    Raises:
      ImageError: as of `decode` and `Canvas.of`.
    """
    image = decode(encoded, cut_bottom=data.cut_bottom, max_pixels=data.max_pixels)
    return crops_at(image, data, test_places(crops), padding)


def check_readable(encoded: bytes, data: Data, *, whole: bool) -> None:
    """Checks that an image can be decoded and cropped as `data` says.

    Args:
      encoded: the image.
      data: how it is read.
      whole: whether it is decoded with `strict=True`; otherwise it is checked by `check`.

    Raises:
      ImageError: as of `decode` and `Canvas.of`.
    """
    cut_bottom, max_pixels = data.cut_bottom, data.max_pixels
    if whole:
        image = decode(encoded, cut_bottom=cut_bottom, max_pixels=max_pixels, strict=True)
        sizes = [image.shape[:2]]
    else:
        sizes = decoding.check(encoded, cut_bottom=cut_bottom, max_pixels=max_pixels)
    try:
        for height, width in sizes:
            Canvas.of(data, height, width)
    except ImageError:
        if len(sizes) == 1:
            raise
        image = decode(encoded, cut_bottom=cut_bottom, max_pixels=max_pixels)
        Canvas.of(data, *image.shape[:2])

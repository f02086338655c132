"""Resizing and cropping of decoded images, `[H, W, 3]`."""

import math
from collections.abc import Sequence

import cv2
import numpy as np

from fgr_jax.config import Data
from fgr_jax.data.images.decoding import Image, decode


def resize(image: Image, size: int) -> Image:
    """Resizes the whole image to `[size, size, 3]`, whatever its aspect ratio.

    A side that shrinks is averaged over the area of each new pixel, which avoids aliasing; a side that
    grows is interpolated linearly. Of OpenCV's modes, these are the closest to torchvision's
    antialiased bilinear interpolation.
    """
    height, width = image.shape[:2]
    smaller = (min(width, size), min(height, size))
    if smaller != (width, height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if smaller != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return image


def crop(image: Image, top: int, left: int, size: int) -> Image:
    """Returns a view of the square `[size, size, 3]` whose upper left corner is at (top, left)."""
    return image[top : top + size, left : left + size]


def resize_and_crop(image: Image, size: int, top: int, left: int, crop_size: int) -> Image:
    """Returns `crop(resize(image, size), top, left, crop_size)` bit for bit, but faster.

    Where both sides grow, the area below and to the right of the crop is not computed.
    """
    height, width = image.shape[:2]
    if height > size or width > size or height == width == size:
        return crop(resize(image, size), top, left, crop_size)
    # Interpolation needs one row and one column beyond the crop's last ones.
    rows = min(height, math.ceil((top + crop_size) * height / size) + 1)
    columns = min(width, math.ceil((left + crop_size) * width / size) + 1)
    if (round(rows * size / height), round(columns * size / width)) == (rows, columns):
        # OpenCV returns an image unchanged if its size is, whatever the factors.
        return crop(resize(image, size), top, left, crop_size)
    scale = {"fx": size / width, "fy": size / height}
    resized = cv2.resize(image[:rows, :columns], None, **scale, interpolation=cv2.INTER_LINEAR)
    return crop(resized, top, left, crop_size)  # type: ignore[arg-type]  # uint8 as `image`


def crops_at(image: Image, data: Data, offsets: Sequence[tuple[int, int]]) -> Image:
    """Returns the crops `[V, crop, crop, 3]` of the resized image at V offsets (top, left)."""
    if len(offsets) == 1:
        return resize_and_crop(image, data.resize, *offsets[0], data.crop)[None]
    resized = resize(image, data.resize)
    return np.stack([crop(resized, top, left, data.crop) for top, left in offsets])


def center_offset(size: int, crop_size: int) -> int:
    """Returns where a center crop begins, in pixels; odd margins are rounded as in torchvision."""
    return round((size - crop_size) / 2)


def test_crop_offsets(data: Data, crops: int) -> tuple[tuple[int, int], ...]:
    """Returns (top, left) of each crop of a test image in the resized square, the center last.

    With `crops=5` they are those of torchvision's `FiveCrop`, in its order: upper left, upper right,
    lower left, lower right, center; with `crops=1`, the center alone.
    """
    end = data.resize - data.crop
    center = center_offset(data.resize, data.crop)
    corners = (0, 0), (0, end), (end, 0), (end, end)
    return (*(corners if crops == 5 else ()), (center, center))


def test_crops(encoded: bytes, data: Data, crops: int) -> Image:
    """Decodes a test image and returns its crops `[V, crop, crop, 3]`, V = `crops` = 1 or 5.

    Raises:
      ImageError: as of `decode`.
    """
    image = decode(encoded, cut_bottom=data.cut_bottom, max_pixels=data.max_pixels)
    return crops_at(image, data, test_crop_offsets(data, crops))

"""Images as NumPy arrays: decoding, resizing, cropping. Color is RGB, `[H, W, 3]`."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from fgr_jax.config import Data

Image = npt.NDArray[np.uint8]

_JPEG_START = b"\xff\xd8"
_JPEG_END = b"\xff\xd9"
_JPEG_START_OF_SCAN = 0xDA
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_GIF_STARTS = (b"GIF87a", b"GIF89a")
_GIF_END = b"\x3b"
_BMP_START = b"BM"
_TIFF_STARTS = (b"II*\x00", b"MM\x00*")
_STARTS = (_JPEG_START, _PNG_START, *_GIF_STARTS, _BMP_START, *_TIFF_STARTS)


class ImageError(Exception):
    """The bytes are not a complete image; the message briefly says why."""


def check(data: bytes) -> None:
    """Checks the beginning and the end of an encoded image without decoding it.

    Raises:
      ImageError: the bytes do not begin like a JPEG, PNG, WebP, BMP, GIF or TIFF, or are truncated.
    """
    if not data:
        raise ImageError("is empty")
    if not data.startswith(_STARTS) and not _is_webp(data):
        raise ImageError("is not an image (JPEG, PNG, WebP, BMP, GIF or TIFF)")
    if _is_truncated(data):
        raise ImageError("is truncated")


def decode(data: bytes, *, cut_bottom: int = 0) -> Image:
    """Decodes an image to uint8 RGB `[H, W, 3]`, rotated according to its EXIF orientation.

    Grayscale becomes RGB, 16 bits become 8, transparency is dropped, and only the first frame of a GIF
    is decoded.

    Args:
      data: the encoded image.
      cut_bottom: number of rows to cut off at the bottom.

    Raises:
      ImageError: the bytes are not an image, or are truncated (OpenCV itself silently fills the rest
        with gray), or no row is left.
    """
    check(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # more pixels than OpenCV accepts
        raise ImageError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise ImageError("is not an image that can be decoded")
    if cut_bottom >= len(image):
        raise ImageError(f"is {len(image)} pixels high, of which {cut_bottom} are to be cut off")
    return image[: len(image) - cut_bottom]  # type: ignore[return-value]  # uint8, as asked for


def _is_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def _is_truncated(data: bytes) -> bool:
    """Returns whether an image ends before its end marker, or before the length in its header."""
    if data.startswith(_JPEG_START):
        return not data.endswith(_JPEG_END) and _is_truncated_jpeg(data)
    if data.startswith(_PNG_START):
        return _PNG_END not in data[-1024:]
    if _is_webp(data):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(_GIF_STARTS):
        return not data.rstrip(b"\0\r\n").endswith(_GIF_END)
    if data.startswith(_BMP_START):
        return len(data) < int.from_bytes(data[2:6], "little")
    return False


def _is_truncated_jpeg(data: bytes) -> bool:
    """Returns whether no end marker follows the header of a JPEG."""
    # The header's segments are skipped: a thumbnail among them has an end marker of its own.
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == _JPEG_START_OF_SCAN:
            return data.rfind(_JPEG_END) < position
        if marker == 0xFF:  # fill byte
            position += 1
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return True


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
    image = decode(encoded, cut_bottom=data.cut_bottom)
    return crops_at(image, data, test_crop_offsets(data, crops))

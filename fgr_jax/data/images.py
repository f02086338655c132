"""Pictures as NumPy arrays: decoding, resizing, cropping. Color is RGB, `[H, W, 3]`."""

import math

import cv2
import numpy as np
import numpy.typing as npt

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
    """The bytes are no complete picture; the message says why, in a few words."""


def check(data: bytes) -> None:
    """Looks at both ends of a picture, and decodes nothing.

    Raises:
      ImageError: the bytes do not begin like a JPEG, PNG, WebP, BMP, GIF or TIFF, or are cut off.
    """
    if not data:
        raise ImageError("is empty")
    if not data.startswith(_STARTS) and not _is_webp(data):
        raise ImageError("is not a picture (JPEG, PNG, WebP, BMP, GIF or TIFF)")
    if _is_cut_off(data):
        raise ImageError("is truncated")


def decode(data: bytes, *, cut_bottom: int = 0) -> Image:
    """Decodes a picture to uint8 RGB `[H, W, 3]`, upright by its EXIF orientation.

    `cut_bottom` rows at its lower end are left out.

    Gray becomes RGB, 16 bits become 8, transparency is dropped, and of a GIF the first frame is taken.

    Raises:
      ImageError: the bytes are no picture, or the picture is cut off (OpenCV on its own fills a
        truncated picture up with gray and says nothing), or no row is left.
    """
    check(data)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # more pixels than OpenCV takes
        raise ImageError(f"cannot be decoded ({error.err})") from error
    if image is None:
        raise ImageError("is not a picture that can be decoded")
    if cut_bottom >= len(image):
        raise ImageError(f"is {len(image)} pixels high, of which {cut_bottom} are to be cut off")
    return image[: len(image) - cut_bottom]  # type: ignore[return-value]  # uint8, as asked for


def _is_webp(data: bytes) -> bool:
    return data.startswith(b"RIFF") and data[8:12] == b"WEBP"


def _is_cut_off(data: bytes) -> bool:
    """Whether a picture ends before its format's end marker, or before the length it states."""
    if data.startswith(_JPEG_START):
        return not data.endswith(_JPEG_END) and _is_cut_off_jpeg(data)
    if data.startswith(_PNG_START):
        return _PNG_END not in data[-1024:]
    if _is_webp(data):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(_GIF_STARTS):
        return not data.rstrip(b"\0\r\n").endswith(_GIF_END)
    if data.startswith(_BMP_START):
        return len(data) < int.from_bytes(data[2:6], "little")
    return False


def _is_cut_off_jpeg(data: bytes) -> bool:
    """Whether no end marker follows the header."""
    # Skip the header's segments: a thumbnail among them has an end marker of its own.
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
    """Resizes the whole picture to `[size, size, 3]`, whatever its aspect ratio.

    A side that shrinks is averaged over the area of each new pixel, so it does not alias; a side that
    grows is interpolated linearly. Of OpenCV's choices this is the nearest to torchvision's
    antialiased bilinear one.
    """
    height, width = image.shape[:2]
    smaller = (min(width, size), min(height, size))
    if smaller != (width, height):
        image = cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if smaller != (size, size):
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
    return image


def crop(image: Image, top: int, left: int, size: int) -> Image:
    """The square `[size, size, 3]` whose upper left corner is at (top, left), as a view."""
    return image[top : top + size, left : left + size]


def resize_and_crop(image: Image, size: int, top: int, left: int, crop_size: int) -> Image:
    """`crop(resize(image, size), top, left, crop_size)`, to the bit, in less time.

    Where both sides grow, what lies below the crop and to its right is not computed.
    """
    height, width = image.shape[:2]
    if height > size or width > size or height == width == size:
        return crop(resize(image, size), top, left, crop_size)
    # One row and one column more than the crop's last ones lie between.
    rows = min(height, math.ceil((top + crop_size) * height / size) + 1)
    columns = min(width, math.ceil((left + crop_size) * width / size) + 1)
    if (round(rows * size / height), round(columns * size / width)) == (rows, columns):
        # OpenCV gives back unchanged what keeps its number of pixels, whatever the factors.
        return crop(resize(image, size), top, left, crop_size)
    resized = cv2.resize(
        image[:rows, :columns],
        None,
        fx=size / width,
        fy=size / height,
        interpolation=cv2.INTER_LINEAR,
    )
    return crop(resized, top, left, crop_size)  # type: ignore[arg-type]  # uint8 as `image`


def center_offset(size: int, crop_size: int) -> int:
    """Where a center crop begins, with torchvision's rounding where the margin is odd."""
    return round((size - crop_size) / 2)


def center_crop(image: Image, size: int, crop_size: int) -> Image:
    """The center of the whole picture, resized: what a network is shown of it in a test."""
    offset = center_offset(size, crop_size)
    return resize_and_crop(image, size, offset, offset, crop_size)


def five_crop_offsets(height: int, width: int, size: int) -> tuple[tuple[int, int], ...]:
    """(top, left) of torchvision's `FiveCrop`, in its order.

    Upper left, upper right, lower left, lower right, and last the center.
    """
    bottom, right = height - size, width - size
    center = (center_offset(height, size), center_offset(width, size))
    return (0, 0), (0, right), (bottom, 0), (bottom, right), center


def five_crops(image: Image, size: int) -> Image:
    """The four corners and, last, the center of `image` `[H, W, 3]`: `[5, size, size, 3]`."""
    height, width = image.shape[:2]
    offsets = five_crop_offsets(height, width, size)
    return np.stack([crop(image, top, left, size) for top, left in offsets])

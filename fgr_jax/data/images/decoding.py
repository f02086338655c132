"""Decoding of image files: JPEGs as they usually are by simplejpeg, which is faster, all else by Pillow.

Both use libjpeg-turbo, so the pixels are the same.
"""

import contextlib
import ctypes
import io
import logging
import re
import warnings
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import simplejpeg
from PIL import ImageFile, _imaging
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import COLORMAP, PHOTOMETRIC_INTERPRETATION, TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from fgr_jax.config import Data
from fgr_jax.data.images import jpeg, orientation, png, tiff
from fgr_jax.data.images.errors import ImageError
from fgr_jax.data.images.kinds import Kind, identify

# What the libraries print or warn of names no file, and what matters is raised as well.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
with contextlib.suppress(AttributeError, OSError):  # of a libtiff that is linked in another way
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)

Image = npt.NDArray[np.uint8]

_MAX_PIXELS = Data().max_pixels
# The classes themselves: `Image.open` applies a limit of its own to all images of the process.
_OPENERS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "AVIF": AvifImageFile,
    "BMP": BmpImageFile,
    "GIF": GifImageFile,
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "TIFF": TiffImageFile,
    "WEBP": WebPImageFile,
}
try:
    from pillow_heif.as_plugin import HeifImageFile

    _OPENERS["HEIF"] = HeifImageFile
except ImportError:
    pass

# How images are turned upright, by their orientation: an image that is stored as `x[H, W, 3]`.
_UPRIGHT: dict[int, Callable[[Image], Image]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x.swapaxes(0, 1)[::-1],
}


class _Plan(NamedTuple):
    """How an image is decoded."""

    kind: Kind
    header: jpeg.Jpeg | png.Png | None
    reduction: int  # 1, or the factor by which both sides are divided as a JPEG is decoded
    checked: bool  # whether `check` has accepted it before


def check(
    data: bytes, *, cut_bottom: int = 0, max_pixels: int = _MAX_PIXELS
) -> list[tuple[int, int]]:
    """Checks that `decode` with the same arguments accepts an image.

    Of JPEGs as they usually are only the structure is read, and the pixels of PNGs without a palette
    are inflated. All other images are decoded.

    Returns:
      The height and width of what `decode` returns; both possibilities where it was not read whether
      the image is turned by a quarter.

    Raises:
      ImageError: as of `decode`.
    """
    plan = _plan(data, max_pixels)
    match plan.header:
        case jpeg.Jpeg(sound=True) | png.Png(usual=True, color=0 | 2 | 4 | 6) as header:
            if cut_bottom < min(header.height, header.width):  # it may be turned by a quarter
                height, width = (
                    -(-side // plan.reduction) for side in (header.height, header.width)
                )
                cut = cut_bottom // plan.reduction
                return [(height - cut, width), (width - cut, height)]
    height, width = _decode_and_cut(data, plan, cut_bottom, max_pixels).shape[:2]
    return [(height, width)]


def decode(
    data: bytes,
    *,
    cut_bottom: int = 0,
    max_pixels: int = _MAX_PIXELS,
    checked: bool = False,
    strict: bool = False,
) -> Image:
    """Decodes an image to uint8 RGB `[H, W, 3]`, upright according to its EXIF or XMP orientation.

    Grayscale, palettes, CMYK and LAB become RGB, transparency is dropped whatever the color beneath,
    and of several frames or pages the first is decoded. 16 bits become 8: the upper 8 of the 8, 10, 12
    or 16 that the brightest sample needs, as cameras often store 12 bits in 16.

    Args:
      data: the encoded image.
      cut_bottom: number of rows to cut off at the bottom.
      max_pixels: a JPEG of more pixels is decoded at half, a quarter or an eighth of its size, so that
        it has at most as many; any other image of more pixels is refused before memory is allocated.
      checked: whether `check` has accepted it before, which saves a part of the time.
      strict: whether a JPEG whose coded pixels end too early although an end marker follows, or that
        has codes of no meaning, is an error, too; part of it is gray. `check` does not find it.

    Raises:
      ImageError: the bytes are not an image of a format that is read, or are truncated; or the image
        has too many pixels, or samples that have no unique meaning as colors, or no row is left.
    """
    plan = _plan(data, max_pixels, checked=checked)
    if strict and plan.kind.format == "JPEG":
        _check_jpeg_data(data)
    return _decode_and_cut(data, plan, cut_bottom, max_pixels)


def _decode_and_cut(data: bytes, plan: _Plan, cut_bottom: int, max_pixels: int) -> Image:
    image = _decode(data, plan, max_pixels)
    cut_bottom //= plan.reduction
    if cut_bottom >= len(image):
        raise ImageError(
            f"is {len(image)} pixels high, of which {cut_bottom} are to be cut off "
            "(--config.data.cut_bottom)"
        )
    return image[: len(image) - cut_bottom]


def _plan(data: bytes, max_pixels: int, *, checked: bool = False) -> _Plan:
    """Reads what decides how an image is decoded."""
    kind = identify(data)
    if not data:
        raise ImageError("is empty")
    if kind.format not in _OPENERS:
        what = kind.name if kind.is_image else f"not an image but {kind.name}"
        raise ImageError(f"is {what}: {kind.way_out}")
    header: jpeg.Jpeg | png.Png | None = None
    if kind.format == "JPEG":
        header = jpeg.read(data, checked=checked)
    elif kind.format == "PNG":
        header = png.read(data, checked=checked)
    reduction = 1
    if isinstance(header, jpeg.Jpeg) and not header.is_kept_whole:
        while reduction < 8 and _pixels(header, reduction) > max_pixels:
            reduction *= 2
    if header is not None:
        _check_size(_pixels(header, reduction), header.width, header.height, max_pixels)
    if isinstance(header, png.Png) and not checked:
        png.check_pixels(header)
    return _Plan(kind, header, reduction, checked)


def _pixels(header: jpeg.Jpeg | png.Png, reduction: int) -> int:
    return -(-header.height // reduction) * -(-header.width // reduction)


def _check_size(pixels: int, width: int, height: int, max_pixels: int) -> None:
    if pixels > max_pixels:
        raise ImageError(
            f"has {width:,} × {height:,} pixels, more than --config.data.max_pixels={max_pixels}"
        )


def _decode(data: bytes, plan: _Plan, max_pixels: int) -> Image:
    """Decodes the whole image, upright."""
    header = plan.header
    if isinstance(header, jpeg.Jpeg) and header.sound and plan.reduction == 1:
        pixels = _decode_jpeg(data, header)
        if pixels is not None:
            return _upright(pixels, orientation.stated(header.exif, header.xmp))
    if (
        isinstance(header, png.Png)
        and header.usual
        and header.plain
        and (plan.checked or header.color != 3)  # Pillow finds what is not in the palette
    ):
        # A fifth faster than Pillow. Of a damaged image, libpng would print a line without its name.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is not None:
            return image  # type: ignore[return-value]  # uint8, as asked for
    try:
        return _decode_with_pillow(data, plan, max_pixels)
    except ImageError:
        if not isinstance(header, png.Png):
            raise
    try:
        return _decode_with_pillow(png.without_metadata(data), plan, max_pixels)
    except ImageError:
        bare = png.without_metadata(data, keep_orientation=False)
        return _decode_with_pillow(bare, plan, max_pixels)


def _decode_jpeg(data: bytes, header: jpeg.Jpeg) -> Image | None:
    """Decodes a JPEG as it is stored; returns None if it is too unusual for simplejpeg."""
    try:
        if len(header.components) in (1, 3):
            return simplejpeg.decode_jpeg(data, "RGB", strict=False)
        if len(header.components) == 4:  # stored inverted
            inks = simplejpeg.decode_jpeg(data, "CMYK", strict=False).astype(np.uint16)
            key = inks[:, :, 3:]  # rounded as by OpenCV
            return (key - ((255 - inks[:, :, :3]) * key >> 8)).astype(np.uint8)
    except ValueError:
        pass
    return None


def _check_jpeg_data(data: bytes) -> None:
    """Decodes a JPEG for the warnings of libjpeg; superfluous bytes do the pixels no harm."""
    try:
        simplejpeg.decode_jpeg(data, "GRAY", strict=True)
    except ValueError as error:
        if re.match("Corrupt JPEG data(?!.*extraneous)|Premature end", str(error)):
            raise ImageError(f"is damaged ({error})") from error


def _decode_with_pillow(data: bytes, plan: _Plan, max_pixels: int) -> Image:
    """Decodes an image of any format that is read."""
    try:
        if plan.kind.format == "TIFF" and not plan.checked:
            tiff.check(data)
        try:
            image = _OPENERS[plan.kind.format](io.BytesIO(data))
        except SyntaxError:
            if plan.kind.format != "TIFF":
                raise
            return _decode_rare_tiff(data, plan, max_pixels)
        width, height = image.size
        if plan.reduction > 1:
            image.draft(image.mode, (width // plan.reduction, height // plan.reduction))
        _check_size(image.width * image.height, width, height, max_pixels)
        coding = str(image.tile[0].args) if image.tile else ""  # of the samples, "RGB;16B"
        turn = _load(image, plan)
        if not plan.checked:
            _check_samples(image, plan, coding)
        pixels = _to_rgb(image, plan.kind, coding)
        if ";16" in coding and image.mode in ("RGB", "RGBA") and pixels.max() < 16:
            pixels = _dark_colors(data if plan.header is None else png.without_metadata(data))
        return _upright(pixels, turn)
    except ImageError:
        raise
    except PIL.Image.DecompressionBombError as error:
        count = int(re.findall(r"\d+", str(error))[0])
        raise ImageError(
            f"has {count:,} pixels, more than Pillow reads in {plan.kind.name}"
        ) from error
    except Exception as error:  # decoders raise all sorts of exceptions for damaged data
        raise ImageError(_reason(plan.kind, error)) from error


def _load(image: ImageFile.ImageFile, plan: _Plan) -> int:
    """Loads the pixels of an image that Pillow has opened; returns the orientation that is left."""
    if isinstance(plan.header, jpeg.Jpeg):
        image.load()
        return orientation.stated(plan.header.exif, plan.header.xmp)
    if isinstance(image, TiffImageFile):  # Pillow turns it, and would by the simplest XMP only
        stated = orientation.in_tiff(image.tag_v2)
        xmp = image.info.pop("xmp", None)
        image.load()
        return 1 if stated else orientation.stated(None, xmp)
    image.load()
    if plan.kind.format == "HEIF":  # is turned by what it states in the format itself
        return 1
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    return orientation.stated(exif or orientation.raw_profile(image.info), xmp)


def _check_samples(image: ImageFile.ImageFile, plan: _Plan, coding: str) -> None:
    """Checks what Pillow accepts although the pixels would be wrong."""
    if isinstance(plan.header, png.Png) and plan.header.color == 3:
        highest, colors = np.asarray(image).max(), plan.header.colors
        if highest >= colors:
            raise ImageError(f"is a damaged PNG: it uses color {highest} of a palette of {colors}")
    if image.mode == "CMYK" and ";16" in coding:
        _check_range(np.asarray(image))


def _check_range(upper: Image) -> None:
    """Checks that the upper 8 of 16 bits are used."""
    if upper.max() < 16:
        raise ImageError("uses at most 12 of its 16 bits: convert it to PNG")


def _reason(kind: Kind, error: Exception) -> str:
    """Returns why Pillow raised `error`: its words tell what it does not read from damage."""
    words = " ".join(str(error).split())
    if re.search("support|unknown|unrecogni|cannot handle", words, re.IGNORECASE):
        return f"is {kind.name} of a kind that is not read ({words}): convert it to JPEG or PNG"
    return f"is truncated or damaged ({kind.name}: {words})"


def _decode_rare_tiff(data: bytes, plan: _Plan, max_pixels: int) -> Image:
    """Decodes a TIFF of 16-bit integers that Pillow does not read; refuses all others by name."""
    if tiff.is_cut(data):
        raise ImageError("is truncated")
    header = tiff.read(data)
    _check_size(header.width * header.height, header.width, header.height, max_pixels)
    if header.has_16_bit_integers and not header.is_tiled:  # OpenCV misreads tiles at the edges
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if pixels is not None:
            upper = pixels.astype(np.uint8)
            if not plan.checked:
                _check_range(255 - upper if header.white_is_zero else upper)
            return _upright(upper, header.turn)
    raise ImageError(f"is {header.name} that is not read: convert it to PNG")


def _to_rgb(image: PIL.Image.Image, kind: Kind, coding: str) -> Image:
    """Converts a loaded image to uint8 RGB `[H, W, 3]`."""
    if image.mode in ("I", "F"):
        numbers = "floating-point numbers" if image.mode == "F" else "signed or 32-bit integers"
        raise ImageError(
            f"is {kind.name} of {numbers}: convert it to an 8-bit PNG, as its range is unknown"
        )
    if image.mode.startswith("I;16"):
        gray = _upper_bits(np.asarray(image), 12 if "I;12" in coding else None)
        if isinstance(image, TiffImageFile) and image.tag_v2[PHOTOMETRIC_INTERPRETATION] == 0:
            gray = 255 - gray  # white is 0, which Pillow heeds for up to 8 bits
        return np.repeat(gray[:, :, None], 3, axis=2)
    if image.mode == "P" and isinstance(image, TiffImageFile):
        colors = np.asarray(image.tag_v2[COLORMAP])
        if colors.max() < 256:  # stored in 8 bits instead of 16, of which Pillow takes the upper 8
            return colors.reshape(3, -1).T.astype(np.uint8)[np.asarray(image)]
    if image.mode in ("La", "RGBa"):  # which Pillow converts to nothing else
        image = image.convert(image.mode.upper())
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _upper_bits(samples: npt.NDArray[np.uint16], bits: int | None = None) -> Image:
    """Returns the upper 8 of the `bits` of 16-bit samples, or of those that the brightest needs."""
    if bits is None:
        needed = int(samples.max()).bit_length()
        bits = next((each for each in (8, 10, 12) if needed <= each), 16)
    return (samples >> (bits - 8)).astype(np.uint8)


def _dark_colors(data: bytes) -> Image:
    """Decodes color of 16 bits, of which Pillow keeps the upper 8 even where they are not used."""
    samples = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.dtype != np.uint16:
        raise ImageError("uses at most 12 of its 16 bits: convert it to PNG")
    return _upper_bits(samples[:, :, 2::-1].astype(np.uint16))


def _upright(stored: Image, stated: int) -> Image:
    turn = _UPRIGHT.get(stated)
    return stored if turn is None else np.ascontiguousarray(turn(stored))

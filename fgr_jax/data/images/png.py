"""The chunks of a PNG, read without decoding it."""

import dataclasses
import zlib

from fgr_jax.data.images.errors import ImageError

_START = 8  # bytes of the signature
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_PLAIN = _CRITICAL | {b"bKGD", b"gAMA", b"pHYs", b"tEXt", b"tIME"}


@dataclasses.dataclass(slots=True)
class Png:
    """What the chunks of a PNG state."""

    height: int
    width: int
    usual: bool  # of 8 bits, not interlaced, not animated
    plain: bool = True  # nothing in it could change the pixels, or make libpng print a warning


def read(data: bytes, *, checked: bool = False) -> Png:
    """Reads all chunks up to the end of the image, whatever follows, and compares their checksums.

    Args:
      data: the encoded image.
      checked: whether the checksums have been compared before.

    Raises:
      ImageError: it is truncated or damaged, or its header is invalid.
    """
    view = memoryview(data)
    png, position, kind, has_pixels = None, _START, b"", False
    has_palette = data[25:26] != b"\3"  # or needs none
    while kind != b"IEND":
        kind, start = data[position + 4 : position + 8], position + 8
        end = start + int.from_bytes(data[position : position + 4], "big") + 4
        if end > len(data):
            raise ImageError("is truncated")
        if png is None:
            png = _header(kind, data[start : end - 4])
        is_sound = (checked and kind in _CRITICAL) or zlib.crc32(
            view[position + 4 : end - 4]
        ) == int.from_bytes(data[end - 4 : end], "big")
        if kind in _CRITICAL and not is_sound:
            raise ImageError("is a damaged PNG: the checksum of its data is wrong")
        has_pixels |= kind == b"IDAT"
        has_palette |= kind == b"PLTE"
        png.usual &= kind != b"acTL"
        png.plain &= is_sound and kind in _PLAIN and (has_palette or kind != b"IDAT")
        position = end
    if png is None or not has_pixels:
        raise ImageError("is a PNG without pixels")
    return png


def without_metadata(data: bytes) -> bytes:
    """Returns a PNG that `read` accepts without what is neither its pixels nor their orientation.

    Chunks that say something else may be damaged; the pixels are none the worse for it.
    """
    kept, position, kind = [data[:_START]], _START, b""
    while kind != b"IEND":
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        whole = zlib.crc32(data[position + 4 : end - 4]) == int.from_bytes(
            data[end - 4 : end], "big"
        )
        if kind in _CRITICAL or (kind == b"eXIf" and whole):
            kept.append(data[position:end])
        position = end
    return b"".join(kept)


def _header(kind: bytes, body: bytes) -> Png:
    if kind != b"IHDR" or len(body) != 13:
        raise ImageError("is a PNG with an invalid header")
    width, height = (int.from_bytes(body[at : at + 4], "big") for at in (0, 4))
    bits, color, *methods = body[8:]
    if bits not in _DEPTHS.get(color, ()) or methods[:2] != [0, 0] or methods[2] > 1:
        raise ImageError("is a PNG with an invalid header")
    if not height or not width:
        raise ImageError(f"has {width}×{height} pixels")
    return Png(height, width, bits == 8 and methods[2] == 0)

"""The chunks of a PNG, read without decoding it."""

import dataclasses
import zlib

from fgr_jax.data.images.errors import ImageError

_START = 8  # bytes of the signature
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
_XMP = b"XML:com.adobe.xmp\0"  # begins an iTXt chunk
_PROFILE = b"Raw profile type "  # begins a tEXt or zTXt chunk, in which ImageMagick writes EXIF
_PIECE = 1 << 16  # compressed bytes that are inflated at once


@dataclasses.dataclass(slots=True)
class Png:
    """What the chunks of a PNG state."""

    height: int
    width: int
    bits: int
    color: int
    interlaced: bool
    usual: bool  # of 8 bits, not interlaced, not animated
    plain: bool = True  # nothing in it could change the pixels, or make libpng print a warning
    colors: int = 0  # of its palette
    pixels: list[memoryview] = dataclasses.field(default_factory=list)  # compressed


def read(data: bytes, *, checked: bool = False) -> Png:
    """Reads all chunks up to the end of the image, whatever follows, and compares their checksums.

    Args:
      data: the encoded image.
      checked: whether the checksums and the palette have been checked before.

    Raises:
      ImageError: it is truncated or damaged, or its header is invalid.
    """
    view = memoryview(data)
    png, position, kind = None, _START, b""
    seen: set[bytes] = set()
    while kind != b"IEND":
        previous = kind
        kind, start = data[position + 4 : position + 8], position + 8
        end = start + int.from_bytes(data[position : position + 4], "big") + 4
        if end > len(data):
            raise ImageError("is truncated")
        if png is None:
            png = _header(kind, data[start : end - 4])
        elif kind == b"IHDR" and not checked:
            raise ImageError("is a damaged PNG: it has two headers")
        is_sound = (checked and kind in _CRITICAL) or zlib.crc32(
            view[position + 4 : end - 4]
        ) == int.from_bytes(data[end - 4 : end], "big")
        if kind in _CRITICAL and not is_sound:
            raise ImageError("is a damaged PNG: the checksum of its data is wrong")
        if kind == b"IDAT":
            if png.pixels and previous != b"IDAT" and not checked:
                raise ImageError("is a damaged PNG: other data lie amid its pixels")
            png.pixels.append(view[start : end - 4])
        elif kind == b"PLTE" and not png.colors:
            png.colors = (end - 4 - start) // 3
        png.usual &= kind != b"acTL"
        png.plain = png.plain and is_sound and _is_plain(png, kind, view[start : end - 4], seen)
        seen.add(kind)
        position = end
    if png is None or not png.pixels:
        raise ImageError("is a PNG without pixels")
    if png.color == 3 and not png.colors and not checked:
        raise ImageError("is a PNG without its palette: convert it again from the original")
    return png


def check_pixels(png: Png) -> None:
    """Inflates the pixels, a piece at a time, and checks their length and how each row is coded.

    Those of interlaced images are not checked.

    Raises:
      ImageError: they are truncated or damaged.
    """
    if png.interlaced:
        return
    stride = 1 + -(-png.width * png.bits * _CHANNELS[png.color] // 8)
    expected, count, inflater = png.height * stride, 0, zlib.decompressobj()
    for part in png.pixels:
        for at in range(0, len(part), _PIECE):
            try:
                piece = inflater.decompress(part[at : at + _PIECE], expected - count + 1)
            except zlib.error as error:
                raise ImageError(
                    f"is a damaged PNG: its data cannot be inflated ({error})"
                ) from error
            if max(piece[-count % stride :: stride], default=0) > 4:
                raise ImageError("is a damaged PNG: a row is coded in a way that does not exist")
            count += len(piece)
            if count > expected:
                raise ImageError(f"is a damaged PNG: it has more than its {png.height} rows")
    if count < expected:
        raise ImageError(f"is truncated: it ends in row {count // stride + 1} of {png.height}")
    if not inflater.eof:
        raise ImageError("is truncated: its compressed data have no end")


def _is_plain(png: Png, kind: bytes, body: memoryview, seen: set[bytes]) -> bool:
    """Returns whether libpng reads a chunk, after those `seen`, without a warning and any effect."""
    early = b"IDAT" not in seen
    match kind:
        case b"IHDR" | b"PLTE" | b"gAMA" | b"bKGD" | b"pHYs" | b"tIME" if kind in seen:
            return False
        case b"IHDR":
            return True
        case b"PLTE":
            return early and png.color in (2, 3, 6) and len(body) % 3 == 0 and 0 < len(body) <= 768
        case b"IDAT":
            # Some encoders state a window that is too small, of which libpng prints a line.
            states_window = early and len(body) > 0
            return (png.color != 3 or b"PLTE" in seen) and not (states_window and body[0] >> 4 < 7)
        case b"IEND":
            return not body
        case b"gAMA":
            value = int.from_bytes(body, "big")
            return early and b"PLTE" not in seen and len(body) == 4 and 16 <= value <= 625_000_000
        case b"bKGD":
            if png.color == 3:
                return early and len(body) == 1 and body[0] < png.colors
            length = 2 if png.color in (0, 4) else 6
            return early and len(body) == length and not any(body[::2])
        case b"pHYs":
            return early and len(body) == 9
        case b"tIME":
            return len(body) == 7 and all(
                low <= value <= high
                for value, low, high in zip(
                    body[2:], (1, 1, 0, 0, 0), (12, 31, 23, 59, 60), strict=True
                )
            )
        case b"tEXt":
            return bytes(body[:80]).find(b"\0") > 0 and not bytes(body).startswith(_PROFILE)
    return False


def without_metadata(data: bytes, *, keep_orientation: bool = True) -> bytes:
    """Returns a PNG that `read` accepts without what is neither its pixels nor their orientation.

    Chunks that say something else may be damaged; the pixels are none the worse for it.
    """
    orienting = [b"eXIf", b"iTXt" + _XMP, b"tEXt" + _PROFILE, b"zTXt" + _PROFILE]
    kept, position, kind = [data[:_START]], _START, b""
    while kind != b"IEND":
        kind = data[position + 4 : position + 8]
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        whole = zlib.crc32(data[position + 4 : end - 4]) == int.from_bytes(
            data[end - 4 : end], "big"
        )
        states_orientation = data.startswith(tuple(orienting), position + 4)
        if kind in _CRITICAL or (states_orientation and whole and keep_orientation):
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
    interlaced = methods[2] == 1
    return Png(height, width, bits, color, interlaced, usual=bits == 8 and not interlaced)

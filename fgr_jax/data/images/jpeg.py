"""The segments of a JPEG, read without decoding it."""

import dataclasses
import functools
import re

from fgr_jax.data.images.errors import ImageError

_MARKER = re.compile(
    rb"\xff[^\x00\x01\xd0-\xd7\xff]"
)  # without stuffed bytes, restarts and fill bytes
_START, _END, _SCAN, _TABLES, _QUANTIZATION, _RESTART = 0xD8, 0xD9, 0xDA, 0xC4, 0xDB, 0xDD
_APP1, _COMMENT = 0xE1, 0xFE
_EXIF = (b"Exif\0\0", b"Exif\0\xff")
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_FACTORS = ((1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 4))
_LONGEST_SIDE = 65500
_ARITHMETIC = (0xC9, 0xCA)
_REFUSED = {
    0xC3: "a lossless JPEG",
    0xC5: "a hierarchical JPEG",
    0xC6: "a hierarchical JPEG",
    0xC7: "a hierarchical JPEG",
    0xCB: "a lossless JPEG",
    0xCD: "a hierarchical JPEG",
    0xCE: "a hierarchical JPEG",
    0xCF: "a hierarchical JPEG",
    0xF7: "a JPEG-LS image",
}


@dataclasses.dataclass(slots=True)
class Jpeg:
    """What the segments of a JPEG state."""

    height: int = 0
    width: int = 0
    # (identifier, horizontal and vertical sampling factor, quantization table) of each component.
    components: tuple[tuple[int, int, int, int], ...] = ()
    progressive: bool = False
    # Whether its pixels are in several scans: libjpeg then keeps all of them in memory, at whatever size
    # it decodes.
    is_kept_whole: bool = False
    exif: bytes = b""  # begins with "Exif"
    xmp: bytes = b""
    # Whether libjpeg decodes it whatever the coded pixels are: every table and scan is as it should be.
    sound: bool = True


def read(data: bytes, *, checked: bool = False) -> Jpeg:
    """Reads all segments; if it is `checked` and ends with an end marker, those before the pixels.

    Raises:
      ImageError: it is truncated, or of a kind that libjpeg does not decode to 8 bits.
    """
    jpeg, position, scans = Jpeg(), 2, 0
    tables: set[int] = set()  # of Huffman codes, class and number, and of quantization, 32 + number
    while marker := _MARKER.search(data, position):
        if marker.start() != position and not scans:
            jpeg.sound = False  # bytes between segments
        kind, start = data[marker.start() + 1], marker.end()
        if kind == _END:
            break
        if kind == _START:  # another image begins before the first one's end
            raise ImageError("is truncated")
        if kind in _REFUSED:
            raise ImageError(f"is {_REFUSED[kind]}: convert it to an ordinary JPEG or PNG")
        position = start + int.from_bytes(data[start : start + 2], "big")
        if not start + 2 <= position <= len(data):
            position, jpeg.sound = start, False  # it may be damage within the pixels
            continue
        body = data[start + 2 : position]
        if kind in (_BASELINE, _EXTENDED, _PROGRESSIVE, *_ARITHMETIC):
            _read_frame(jpeg, kind, body)
        elif kind == _TABLES:
            _add(tables, _huffman_tables(body), jpeg)
        elif kind == _QUANTIZATION:
            _add(tables, _quantization_tables(body), jpeg)
        elif kind == _SCAN:
            scans += 1
            if scans == 1:
                jpeg.is_kept_whole = jpeg.progressive or body[:1] < bytes([len(jpeg.components)])
            jpeg.sound &= _is_sound_scan(jpeg, body, tables)
            if checked and data.endswith(b"\xff\xd9"):
                break
        elif kind == _APP1:
            if not scans:
                _read_metadata(jpeg, body)
        elif not (0xE0 <= kind <= 0xEF or kind == _COMMENT or (kind, len(body)) == (_RESTART, 2)):
            jpeg.sound = False
    else:
        raise ImageError("is truncated")
    if not scans or not jpeg.components:
        raise ImageError("is a JPEG without pixels")
    return jpeg


def _read_metadata(jpeg: Jpeg, body: bytes) -> None:
    if body.startswith(_EXIF):
        jpeg.exif = (jpeg.exif or b"Exif\0\0") + body[6:]  # what is too long for one is in several
    elif body.startswith(_XMP):
        jpeg.xmp = body[len(_XMP) :]


def _add(tables: set[int], found: frozenset[int] | None, jpeg: Jpeg) -> None:
    jpeg.sound &= found is not None
    tables |= found or frozenset()


def _read_frame(jpeg: Jpeg, kind: int, body: bytes) -> None:
    if len(body) < 6 or len(body) != 6 + 3 * body[5] or jpeg.components:
        raise ImageError("is a JPEG with an invalid header")
    if body[0] != 8:
        raise ImageError(f"is a JPEG of {body[0]} bits: convert it to an ordinary JPEG or PNG")
    jpeg.height, jpeg.width = (int.from_bytes(body[at : at + 2], "big") for at in (1, 3))
    jpeg.components = tuple(
        (body[at], body[at + 1] >> 4, body[at + 1] & 15, body[at + 2])
        for at in range(6, len(body), 3)
    )
    jpeg.progressive = kind == _PROGRESSIVE
    if not jpeg.height or not jpeg.width:
        raise ImageError(f"has {jpeg.width}×{jpeg.height} pixels")
    jpeg.sound &= kind not in _ARITHMETIC and _is_usual_sampling(jpeg)
    jpeg.sound &= max(jpeg.height, jpeg.width) <= _LONGEST_SIDE


def _is_usual_sampling(jpeg: Jpeg) -> bool:
    """Returns whether all components but the first, and the key of CMYK, have the same resolution."""
    factors = [(h, v) for _, h, v, _ in jpeg.components]
    if len(factors) == 4 and factors[3] == factors[0]:
        factors.pop()
    return factors[0] in _FACTORS and all(each == (1, 1) for each in factors[1:])


@functools.lru_cache(256)  # most JPEGs have the same
def _huffman_tables(body: bytes) -> frozenset[int] | None:
    """Returns 16 · class + number of the tables in a segment, or None if libjpeg might refuse one."""
    found, position = set(), 0
    while position < len(body):
        counts = body[position + 1 : position + 17]
        symbols = body[position + 17 : position + 17 + sum(counts)]
        code = 0
        for length, count in enumerate(counts, 1):
            code += count
            if code >= 1 << length:
                return None  # more codes than there are
            code <<= 1
        is_dc = body[position] < 16
        if body[position] & ~0x13 or len(counts) < 16 or len(symbols) < sum(counts):
            return None
        if is_dc and max(symbols, default=0) > 11:
            return None
        found.add(body[position])
        position += 17 + sum(counts)
    return frozenset(found)


@functools.lru_cache(256)
def _quantization_tables(body: bytes) -> frozenset[int] | None:
    """Returns 32 + number of the tables in a segment, or None if libjpeg might refuse one."""
    found, position = set(), 0
    while position < len(body):
        if body[position] & ~0x13:
            return None
        found.add(32 + (body[position] & 15))
        position += 129 if body[position] & 16 else 65
    return frozenset(found) if position == len(body) else None


def _is_sound_scan(jpeg: Jpeg, body: bytes, tables: set[int]) -> bool:
    """Returns whether the header of a scan is one that libjpeg certainly accepts."""
    count = body[0] if body else 0
    if not 1 <= count <= 4 or len(body) != 4 + 2 * count:
        return False
    known = {number: (h, v, quantization) for number, h, v, quantization in jpeg.components}
    first, last, high, low = body[-3], body[-2], body[-1] >> 4, body[-1] & 15
    blocks, chosen = 0, set()
    for at in range(1, 1 + 2 * count, 2):
        if body[at] not in known:
            return False
        h, v, quantization = known[body[at]]
        blocks += h * v
        chosen.add(body[at])
        dc, ac = body[at + 1] >> 4, 16 + (body[at + 1] & 15)
        needed = {32 + quantization}
        if first == 0 and high == 0:
            needed.add(dc)
        if last > 0:
            needed.add(ac)
        if not needed <= tables:
            return False
    if len(chosen) < count or len(known) < len(jpeg.components) or (count > 1 and blocks > 10):
        return False
    if not jpeg.progressive:
        return (first, last, high, low) == (0, 63, 0, 0)
    ordered = last == 0 if first == 0 else count == 1 and first <= last < 64
    return ordered and low <= 13 and high in (0, low + 1)

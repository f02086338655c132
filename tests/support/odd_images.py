"""Writers of image files that no library writes, byte by byte."""

import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"
_ADAM7 = [
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
]


def packed(samples: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """Returns the bytes of each row of `samples`, `[H, W·C]`, of 1 to 32 bits each."""
    if bits >= 8 and bits != 12:
        return [row.astype(row.dtype.newbyteorder(order)).tobytes() for row in samples]
    unpacked = samples[:, :, None] >> np.arange(bits)[::-1] & 1
    return [
        np.packbits(row.astype(np.uint8)).tobytes() for row in unpacked.reshape(len(samples), -1)
    ]


def chunk(name: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def segment(marker: int, body: bytes) -> bytes:
    """Writes a segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def png(
    samples: np.ndarray,
    bits: int,
    color: int,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Writes a PNG of `samples`, `[H, W, C]`, with other chunks before and after its pixels."""
    height, width, _ = samples.shape
    passes = _ADAM7 if interlaced else [(0, 0, 1, 1)]
    parts = [samples[top::rows, left::columns] for top, left, rows, columns in passes]
    raw = b"".join(
        b"\0" + row
        for part in parts
        if part.size
        for row in packed(part.reshape(len(part), -1), bits)
    )
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    pixels = chunk(b"IDAT", zlib.compress(raw))
    return PNG + chunk(b"IHDR", header) + before + pixels + after + chunk(b"IEND", b"")


def tiff(
    samples: np.ndarray,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    big: bool = False,
    tile: int = 0,
    rows_per_strip: int = 0,
    planar: bool = False,
    sample_format: int = 1,
    deflated: bool = False,
    header_first: bool = True,
    tags: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:
    """Writes a TIFF of `samples`, `[H, W, C]`.

    Args:
      bits: of each sample, 1 to 32.
      tags: further tags: number, type (3: 16 bits, 4: 32 bits, 1 or 7: bytes), values.
    """
    height, width, channels = samples.shape
    strip = rows_per_strip or height
    planes = [samples[:, :, c : c + 1] for c in range(channels)] if planar else [samples]
    blocks = []
    for plane in planes:
        blocks += list(
            _tiles(plane, tile) if tile else (plane[y : y + strip] for y in range(0, height, strip))
        )
    coded = [b"".join(packed(each.reshape(len(each), -1), bits, order)) for each in blocks]
    coded = [zlib.compress(each) if deflated else each for each in coded]
    start = (16 if big else 8) + (2400 if header_first else 0)
    offsets = list(itertools.accumulate([start, *map(len, coded)]))[:-1]
    entries = [(256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * channels)]
    entries += [(259, 3, [8 if deflated else 1]), (262, 3, [photometric]), (277, 3, [channels])]
    entries += [(284, 3, [2 if planar else 1]), (339, 3, [sample_format] * channels)]
    if tile:
        entries += [
            (322, 3, [tile]),
            (323, 3, [tile]),
            (324, 4, offsets),
            (325, 4, list(map(len, coded))),
        ]
    else:
        entries += [(278, 4, [strip]), (273, 4, offsets), (279, 4, list(map(len, coded)))]
    entries = sorted(
        {
            number: (number, kind, list(values)) for number, kind, values in [*entries, *tags]
        }.values()
    )
    pixels = b"".join(coded)
    directory_at = (16 if big else 8) if header_first else start + len(pixels)
    directory = _directory(entries, directory_at, order, big)
    if header_first:
        assert len(directory) <= 2400, len(directory)
        directory = directory.ljust(2400, b"\0")
    mark = b"II" if order == "<" else b"MM"
    if big:
        head = mark + struct.pack(order + "HHHQ", 43, 8, 0, directory_at)
    else:
        head = mark + struct.pack(order + "HI", 42, directory_at)
    return head + (directory + pixels if header_first else pixels + directory)


def _tiles(plane: np.ndarray, size: int) -> Iterator[np.ndarray]:
    height, width, _ = plane.shape
    filled = np.pad(plane, ((0, -height % size), (0, -width % size), (0, 0)))
    for top, left in itertools.product(range(0, height, size), range(0, width, size)):
        yield filled[top : top + size, left : left + size]


def _directory(
    entries: Sequence[tuple[int, int, list[int]]], at: int, order: str, big: bool
) -> bytes:
    """Returns an image file directory, with the values that do not fit into it behind it."""
    code = {1: "B", 3: "H", 4: "I", 7: "B"}
    inline = 8 if big else 4
    head = struct.pack(order + ("Q" if big else "H"), len(entries))
    behind_at = at + len(head) + len(entries) * (20 if big else 12) + inline
    table, behind = b"", b""
    for number, kind, values in entries:
        packed_values = struct.pack(f"{order}{len(values)}{code[kind]}", *values)
        if len(packed_values) > inline:
            field = struct.pack(order + ("Q" if big else "I"), behind_at + len(behind))
            behind += packed_values
        else:
            field = packed_values.ljust(inline, b"\0")
        table += struct.pack(order + ("HHQ" if big else "HHI"), number, kind, len(values)) + field
    return head + table + bytes(inline) + behind


def bmp(
    rows: Sequence[bytes],
    width: int,
    bits: int,
    *,
    compression: int = 0,
    palette: bytes = b"",
    masks: bytes = b"",
    header_size: int = 40,
    top_down: bool = False,
    height: int = 0,
) -> bytes:
    """Writes a BMP of encoded rows, from the bottom up as is usual."""
    high = height or len(rows)
    body = b"".join(
        row.ljust(-(-len(row) // 4) * 4, b"\0") if compression not in (1, 2) else row
        for row in rows
    )
    if header_size == 12:
        info = struct.pack("<IHHHH", 12, width, high, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII",
            header_size,
            width,
            -high if top_down else high,
            1,
            bits,
            compression,
            len(body),
            0,
            0,
            len(palette) // 4,
            0,
        )
        info += masks
        info = info.ljust(max(header_size, len(info)), b"\0")
    start = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + palette + body

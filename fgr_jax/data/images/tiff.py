"""The tags of a TIFF, for what Pillow does not read."""

import io
import itertools
from typing import NamedTuple

from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    IMAGELENGTH,
    IMAGEWIDTH,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TILEBYTECOUNTS,
    TILEOFFSETS,
    ImageFileDirectory_v2,
)


class Tiff(NamedTuple):
    """What the tags of the first page state."""

    height: int
    width: int
    name: str  # "a TIFF of 3 × 32-bit floating-point numbers in compression 1"
    has_16_bit_integers: bool


def read(data: bytes) -> Tiff:
    """Reads the tags of a TIFF that is not cut."""
    tags = _tags(data)
    bits, formats = set(tags.get(BITSPERSAMPLE, (1,))), set(tags.get(SAMPLEFORMAT, (1,)))
    numbers = "floating-point numbers" if 3 in formats else "samples"
    name = f"a TIFF of {tags.get(SAMPLESPERPIXEL, 1)} × {max(bits)}-bit {numbers}"
    name += f" in compression {tags.get(COMPRESSION, 1)}"
    return Tiff(tags[IMAGELENGTH], tags[IMAGEWIDTH], name, bits == {16} and formats == {1})


def is_cut(data: bytes) -> bool:
    """Returns whether a TIFF ends before its directory or its pixels do."""
    try:
        tags = _tags(data)
        starts = tags.get(STRIPOFFSETS) or tags[TILEOFFSETS]
        lengths = tags.get(STRIPBYTECOUNTS) or tags.get(TILEBYTECOUNTS, ())
        ends = map(sum, itertools.zip_longest(starts, lengths, fillvalue=0))
        return max(ends) > len(data)
    except Exception:  # of a directory that is cut
        return True


def _tags(data: bytes) -> ImageFileDirectory_v2:
    """Reads the first directory; Pillow leaves out tags whose values lie beyond the end.

    Raises:
      EOFError: the directory or some of the values do.
    """
    is_big = data[2] == 43
    tags = ImageFileDirectory_v2(data[: 16 if is_big else 8])
    start = tags.next
    stated = int.from_bytes(
        data[start : start + (8 if is_big else 2)], "little" if data[:1] == b"I" else "big"
    )
    file = io.BytesIO(data)
    file.seek(start)
    tags.load(file)
    if len(tags) < stated:
        raise EOFError
    return tags

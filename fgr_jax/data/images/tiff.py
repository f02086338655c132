"""The tags of a TIFF, for what Pillow does not read."""

import io
import itertools
from typing import NamedTuple

from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    COMPRESSION,
    FILLORDER,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    ROWSPERSTRIP,
    SAMPLEFORMAT,
    SAMPLESPERPIXEL,
    STRIPBYTECOUNTS,
    STRIPOFFSETS,
    TILEBYTECOUNTS,
    TILELENGTH,
    TILEOFFSETS,
    TILEWIDTH,
    ImageFileDirectory_v2,
)

from fgr_jax.data.images import orientation
from fgr_jax.data.images.errors import ImageError

_XMP = 700


class Tiff(NamedTuple):
    """What the tags of the first page state."""

    height: int
    width: int
    name: str  # "a TIFF of 3 × 32-bit floating-point numbers in compression 1"
    has_16_bit_integers: bool
    is_tiled: bool
    white_is_zero: bool
    turn: int  # the orientation that only XMP states


def read(data: bytes) -> Tiff:
    """Reads the tags of a TIFF that is not cut."""
    tags = _tags(data)
    bits, formats = set(tags.get(BITSPERSAMPLE, (1,))), set(tags.get(SAMPLEFORMAT, (1,)))
    numbers = "floating-point numbers" if 3 in formats else "samples"
    name = f"a TIFF of {tags.get(SAMPLESPERPIXEL, 1)} × {max(bits)}-bit {numbers}"
    name += f" in compression {tags.get(COMPRESSION, 1)}"
    return Tiff(
        tags[IMAGELENGTH],
        tags[IMAGEWIDTH],
        name,
        has_16_bit_integers=bits == {16} and formats == {1},
        is_tiled=TILEOFFSETS in tags,
        white_is_zero=tags.get(PHOTOMETRIC_INTERPRETATION) == 0,
        turn=1 if orientation.in_tiff(tags) else orientation.stated(None, tags.get(_XMP)),
    )


def check(data: bytes) -> None:
    """Checks that a TIFF is not of a kind that Pillow decodes to wrong pixels.

    Raises:
      ImageError: it is.
    """
    try:
        tags = _tags(data)
    except Exception:  # is cut, as will be found where it is decoded
        return
    bits, samples = max(tags.get(BITSPERSAMPLE, (1,))), tags.get(SAMPLESPERPIXEL, 1)
    if bits == 8 and 2 in tags.get(SAMPLEFORMAT, (1,)):
        raise ImageError(
            "is a TIFF of signed integers: convert it to an 8-bit PNG, as its range is unknown"
        )
    if bits > 8 and tags.get(FILLORDER) == 2:
        raise ImageError(f"is a TIFF of {bits} bits in reversed order: convert it to PNG")
    if tags.get(PLANAR_CONFIGURATION) == 2 and samples > 1:
        if bits == 16:
            raise ImageError(
                f"is a TIFF of {samples} × 16-bit samples in separate planes: convert it to PNG"
            )
        blocks = len(tags.get(STRIPOFFSETS) or tags.get(TILEOFFSETS, ()))
        if blocks < samples * _blocks_of_a_plane(tags):
            raise ImageError(
                f"is a damaged TIFF: it has {blocks} blocks of samples, too few for {samples} planes"
            )


def _blocks_of_a_plane(tags: ImageFileDirectory_v2) -> int:
    height, width = tags.get(IMAGELENGTH, 1), tags.get(IMAGEWIDTH, 1)
    if STRIPOFFSETS in tags:
        return -(-height // (tags.get(ROWSPERSTRIP) or height))
    return -(-height // (tags.get(TILELENGTH) or height)) * -(
        -width // (tags.get(TILEWIDTH) or width)
    )


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

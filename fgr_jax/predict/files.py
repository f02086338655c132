"""Finds image files, and decodes their crops ahead of the network."""

import collections
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2

from fgr_jax.config import Data
from fgr_jax.data.image_files import Found, find_images, is_fault
from fgr_jax.data.images import Color, Image, ImageError, test_crops
from fgr_jax.data.read_ahead import map_ahead
from fgr_jax.errors import UserError, shown
from fgr_jax.files.local import no_such

BATCHES_AHEAD = 2  # decoded or being decoded, besides the batch on the devices
_NAMED = 3  # files that are left out, for each reason


class ImageFile(NamedTuple):
    """A file and its center crop."""

    path: Path
    crop: Image | None  # uint8 `[crop, crop, 3]`; None if the file cannot be read
    problem: str = ""  # why it cannot be read


def find(paths: Sequence[str]) -> Found:
    """Returns the files among `paths`, and the images in the folders among them.

    Each folder is searched as `find_images` says, which is what preparing a data set does.

    Raises:
      UserError: a path does not exist, or a folder contains no image.
    """
    files: list[Path] = []
    left_out: dict[str, list[Path]] = collections.defaultdict(list)
    if "" in paths:
        raise UserError("PATH is empty: name images or folders; . is the current folder")
    for path in map(Path, paths):
        if not os.path.lexists(path):
            raise UserError(f"{path}: {no_such('file or folder', path)}")
        if not path.is_dir():
            files.append(path)
            continue
        inside = find_images(path)
        if not inside.files and not any(map(is_fault, inside.left_out)):
            raise UserError("; ".join([f"{path}: holds no image", *in_words(inside.left_out)]))
        files += inside.files
        for reason, others in inside.left_out.items():
            left_out[reason] += others
    if not files:
        raise UserError("; ".join(["no image was found", *in_words(left_out)]))
    return Found(files, left_out)


def in_words(left_out: Mapping[str, Sequence[Path]]) -> list[str]:
    """Returns a line for each reason, with the first of the files and folders that are left out."""
    lines = []
    for reason, paths in left_out.items():
        named = ", ".join(map(shown, paths[:_NAMED]))
        more = f" and {len(paths) - _NAMED:,} more" if len(paths) > _NAMED else ""
        lines.append(f"left out, {reason}: {named}{more}")
    return lines


def read(path: Path, data: Data, padding: Color | None = None) -> ImageFile:
    """Reads the center crop of an image, as evaluation does; `padding` is as for `test_crops`."""
    try:
        return ImageFile(path, test_crops(path.read_bytes(), data, 1, padding)[0])
    except ImageError as error:
        return ImageFile(path, None, str(error))
    except OSError as error:
        return ImageFile(path, None, f"cannot be read ({error.strerror})")


def stream(
    paths: Sequence[Path],
    data: Data,
    *,
    threads: int,
    ahead: int,
    padding: Color | None = None,
) -> Iterator[ImageFile]:
    """Yields the images in order, while `threads` threads decode the following ones.

    At most `ahead` images are kept in memory. `padding` is as for `test_crops`.
    """
    cv2.setNumThreads(1)  # our own threads keep the cores busy
    work = functools.partial(read, data=data, padding=padding)
    return map_ahead(work, paths, threads=threads, ahead=ahead)

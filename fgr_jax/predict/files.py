"""Finds image files, and decodes their crops ahead of the network."""

import collections
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2

from fgr_jax.config import Data
from fgr_jax.data.images import Image, ImageError, test_crops
from fgr_jax.errors import UserError

BATCHES_AHEAD = 2  # decoded or being decoded, besides the batch on the devices
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class ImageFile(NamedTuple):
    """A file and its center crop."""

    path: Path
    crop: Image | None  # uint8 `[crop, crop, 3]`; None if the file cannot be read
    problem: str = ""  # why it cannot be read


def find(paths: Sequence[str]) -> list[Path]:
    """Returns the files among `paths`, and those with an image's suffix in the folders among them.

    Folders are searched recursively, each in the order of its names, without hidden files.

    Raises:
      UserError: a path does not exist, or a folder contains no image.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = [
                Path(folder) / file
                for folder, _, files in os.walk(path)
                for file in files
                if not file.startswith(".") and file.lower().endswith(SUFFIXES)
            ]
            if not inside:
                raise UserError(f"{path} holds no image ({', '.join(SUFFIXES)})")
            found += sorted(inside)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return found


def read(path: Path, data: Data) -> ImageFile:
    """Reads the center crop of an image, as evaluation does."""
    try:
        return ImageFile(path, test_crops(path.read_bytes(), data, 1)[0])
    except ImageError as error:
        return ImageFile(path, None, str(error))
    except OSError as error:
        return ImageFile(path, None, f"cannot be read ({error.strerror})")


def stream(paths: Sequence[Path], data: Data, *, threads: int, ahead: int) -> Iterator[ImageFile]:
    """Yields the images in order, while `threads` threads decode the following ones.

    At most `ahead` images are kept in memory.
    """
    cv2.setNumThreads(1)  # our own threads keep the cores busy
    waiting = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        pending: collections.deque[Future[ImageFile]] = collections.deque(
            pool.submit(read, path, data) for path in itertools.islice(waiting, ahead)
        )
        while pending:
            image = pending.popleft().result()
            for path in itertools.islice(waiting, 1):
                pending.append(pool.submit(read, path, data))
            yield image

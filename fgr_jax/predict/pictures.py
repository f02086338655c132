"""Picture files: which there are, and their decoded crops, a few ahead of the network."""

import collections
import itertools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2

from fgr_jax.config import Data
from fgr_jax.data import images
from fgr_jax.errors import UserError

BATCHES_AHEAD = 2  # decoded, or being decoded, beside what the network looks at
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class Picture(NamedTuple):
    """A file, and what the network is to see of it."""

    path: Path
    image: images.Image | None  # uint8 `[crop, crop, 3]`, the center crop; None: see `problem`
    problem: str = ""  # why it cannot be read


def find(named: Sequence[str]) -> list[Path]:
    """The files that are named, and those with a picture's suffix in the folders that are named.

    Folders are searched to the bottom, each in the order of its names; hidden files are left out.

    Raises:
      UserError: there is no such file or folder, or a folder holds no picture.
    """
    found = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            inside = [
                Path(folder) / file
                for folder, folders, files in os.walk(path)
                for file in files
                if not file.startswith(".") and file.lower().endswith(SUFFIXES)
            ]
            if not inside:
                raise UserError(f"{path} holds no picture ({', '.join(SUFFIXES)})")
            found += sorted(inside)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return found


def read(path: Path, data: Data) -> Picture:
    """The center crop of a picture, as the evaluation of a run shows it to the network."""
    try:
        image = images.decode(path.read_bytes(), cut_bottom=data.cut_bottom)
        return Picture(path, images.center_crop(image, data.resize, data.crop))
    except images.ImageError as error:
        return Picture(path, None, str(error))
    except OSError as error:
        return Picture(path, None, f"cannot be read ({error.strerror})")


def stream(paths: Sequence[Path], data: Data, *, threads: int, ahead: int) -> Iterator[Picture]:
    """The pictures in their order; while one is looked at, `threads` decode those after it.

    At most `ahead` pictures are kept, so memory does not grow with their number.
    """
    cv2.setNumThreads(1)  # there are threads enough
    waiting = iter(paths)
    with ThreadPoolExecutor(threads) as pool:
        under_way: collections.deque[Future[Picture]] = collections.deque(
            pool.submit(read, path, data) for path in itertools.islice(waiting, ahead)
        )
        while under_way:
            picture = under_way.popleft().result()
            for path in itertools.islice(waiting, 1):
                under_way.append(pool.submit(read, path, data))
            yield picture

"""Folders of pictures, one to a class: the reader's own, and data sets that come so."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from fgr_jax.data.prepare.builder import PictureBuilder
from fgr_jax.data.prepare.listing import LayoutNotFoundError, Listing, Picture, Problems
from fgr_jax.errors import UserError

_TRAIN = ("train", "training")
_TEST = ("test", "val", "valid", "validation")
_TEST_PERCENT = 20
_NO_PICTURES = {".txt", ".csv", ".json", ".md", ".xml", ".db", ".ini", ".html", ".pdf"}


class Folder(PictureBuilder):
    """Somebody's own pictures: a folder for each class."""

    BUILDER_CONFIGS = ()

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads `train/<class>/*` and `test/<class>/*`, or `<class>/*` split by file name.

        Test may also be called val, valid or validation. With one level of folders, a file is a test
        picture where the hash of its name says so, one in five: the same on every machine, for ever,
        whatever else comes or goes.
        """
        if not root.is_dir():
            raise UserError(f"--config.data.folder={root}: no such folder")
        return read_class_folders(root)

    @classmethod
    def variant(cls, root: Path, listing: Listing) -> tfds.core.BuilderConfig:
        """Names what is prepared by the folder and its content: other pictures are another data set."""
        digest = hashlib.blake2b(digest_size=6)
        for split, pictures in listing.splits.items():
            for picture in pictures:
                status = os.stat(picture.path)
                facts = (split, picture.name, picture.label, status.st_size, status.st_mtime_ns)
                digest.update(repr(facts).encode())
        name = re.sub(r"[^a-z0-9]+", "_", root.resolve().name.lower()).strip("_") or "pictures"
        return tfds.core.BuilderConfig(
            name=f"{name}-{digest.hexdigest()}", description=f"The pictures in {root.name}."
        )


def read_class_folders(root: Path) -> Listing:
    """Reads a folder of folders, with or without splits.

    Raises:
      LayoutNotFoundError: there are no folders, or one split of the two.
      UserError: a class is empty, or is in one split alone.
    """
    try:
        folders = {path.name: path for path in sorted(root.iterdir()) if _is_class(path)}
        train = [folders[name] for name in folders if name.lower() in _TRAIN]
        test = [folders[name] for name in folders if name.lower() in _TEST]
        if len(train) == 1 and test:
            # "test" before "val" where there are both: val is for choosing, not for reporting.
            chosen = min(test, key=lambda path: _TEST.index(path.name.lower()))
            return _two_splits(train[0], chosen)
        if train or test:
            raise LayoutNotFoundError(
                f"{root} holds {', '.join(folders)}: it needs both train/ and one of "
                f"{', '.join(name + '/' for name in _TEST)}, or a folder for each class and no splits"
            )
        if not folders:
            raise LayoutNotFoundError(
                f"{root} holds no folders: put the pictures of each class in a folder of its own"
            )
        return _one_level(root, list(folders))
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror}): change its permissions"
        ) from error


def _two_splits(train: Path, test: Path) -> Listing:
    class_names = sorted(path.name for path in train.iterdir() if _is_class(path))
    problems = Problems()
    for path in sorted(test.iterdir()):
        if _is_class(path) and path.name not in class_names:
            problems.add(f"{path} has no counterpart in {train}")
    splits: dict[str, list[Picture]] = {"train": [], "test": []}
    for split, folder in (("train", train), ("test", test)):
        for label, name in enumerate(class_names):
            files = list(_files(folder / name)) if (folder / name).is_dir() else []
            if not files:
                problems.add(f"{folder / name} holds no pictures")
            splits[split] += [Picture(str(folder / file), label, file) for file in files]
    problems.raise_if_any(str(train.parent), "every class needs pictures in both splits")
    return Listing(class_names, splits)


def _one_level(root: Path, class_names: list[str]) -> Listing:
    problems = Problems()
    splits: dict[str, list[Picture]] = {"train": [], "test": []}
    for label, name in enumerate(class_names):
        files = list(_files(root / name))
        if not files:
            problems.add(f"{root / name} holds no pictures")
        for file in files:
            split = "test" if is_test(file.rpartition("/")[2]) else "train"
            splits[split].append(Picture(str(root / file), label, file))
    problems.raise_if_any(str(root), "put pictures in these folders, or take them out")
    return Listing(class_names, splits)


def is_test(file_name: str) -> bool:
    """Whether a picture belongs to the test split, by the hash of its name: one in five."""
    digest = hashlib.sha256(file_name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % 100 < _TEST_PERCENT


def _files(folder: Path) -> Iterator[str]:
    """Paths from the folder above `folder`, sorted; folders within are looked into."""
    found = []
    for path, _, names in os.walk(folder, onerror=_raise, followlinks=True):
        inside = Path(path).relative_to(folder.parent)
        found += [
            (inside / name).as_posix()
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() not in _NO_PICTURES
        ]
    yield from sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__"))

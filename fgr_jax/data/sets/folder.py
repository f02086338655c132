"""Folders of images, one for each class: the user's own, and data sets that come in this form."""

import hashlib
import os
from pathlib import Path

from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.listing import ImageFile, LayoutNotFoundError, Listing, raise_if_any
from fgr_jax.errors import UserError

_TRAIN = ("train", "training")
_TEST = ("test", "val", "valid", "validation")
_TEST_PERCENT = 20
_NO_IMAGES = {".txt", ".csv", ".json", ".md", ".xml", ".db", ".ini", ".html", ".pdf"}


class Folder(ImageBuilder):
    """The user's own images: a folder for each class."""

    BUILDER_CONFIGS = ()

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads `train/<class>/*` and `test/<class>/*`, or `<class>/*` split by file name.

        The test folder may also be called val, valid or validation. With one level of folders, the hash
        of a file's name decides whether it is a test image, as about one in five is; the split is the
        same on every machine, whatever files are added or removed.
        """
        if not root.is_dir():
            raise UserError(f"--config.data.folder={root}: no such folder")
        return read_class_folders(root)


def read_class_folders(root: Path) -> Listing:
    """Reads a folder of folders, with or without splits.

    Raises:
      LayoutNotFoundError: there are no folders, or only one of the two splits.
      UserError: a class is empty or in only one split, or a folder cannot be read.
    """
    try:
        folders = {path.name: path for path in sorted(root.iterdir()) if _is_class(path)}
        train = [folders[name] for name in folders if name.lower() in _TRAIN]
        test = [folders[name] for name in folders if name.lower() in _TEST]
        if len(train) == 1 and test:
            # "test" takes precedence over "val", which is for model selection.
            chosen = min(test, key=lambda path: _TEST.index(path.name.lower()))
            return _two_splits(train[0], chosen)
        if train or test:
            raise LayoutNotFoundError(
                f"{root} holds {', '.join(folders)}: it needs both train/ and one of "
                f"{', '.join(name + '/' for name in _TEST)}, or a folder for each class and no splits"
            )
        if not folders:
            raise LayoutNotFoundError(
                f"{root} holds no folders: put the images of each class in a folder of their own"
            )
        return _one_level(root, list(folders))
    except PermissionError as error:
        raise UserError(
            f"{error.filename} cannot be read ({error.strerror}): change its permissions"
        ) from error


def _two_splits(train: Path, test: Path) -> Listing:
    class_names = sorted(path.name for path in train.iterdir() if _is_class(path))
    problems: list[str] = []
    for path in sorted(test.iterdir()):
        if _is_class(path) and path.name not in class_names:
            problems.append(f"{path} has no counterpart in {train}")
    folders = {"train": train, "test": test}
    splits = {split: _labeled(path, class_names, problems) for split, path in folders.items()}
    raise_if_any(problems, str(train.parent), "every class needs images in both splits")
    return Listing(class_names, splits)


def _one_level(root: Path, class_names: list[str]) -> Listing:
    problems: list[str] = []
    splits: dict[str, list[ImageFile]] = {"train": [], "test": []}
    for file in _labeled(root, class_names, problems):
        splits["test" if is_test(file.name.rpartition("/")[2]) else "train"].append(file)
    raise_if_any(problems, str(root), "put images into these folders or remove them")
    return Listing(class_names, splits)


def _labeled(root: Path, class_names: list[str], problems: list[str]) -> list[ImageFile]:
    """Lists the images of all classes; a class without images is added to `problems`."""
    listed = []
    for label, name in enumerate(class_names):
        files = _files(root / name) if (root / name).is_dir() else []
        if not files:
            problems.append(f"{root / name} holds no images")
        listed += [ImageFile(str(root / file), label, file) for file in files]
    return listed


def is_test(file_name: str) -> bool:
    """Returns whether an image belongs to the test split, by the hash of its name: one in five."""
    digest = hashlib.sha256(file_name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % 100 < _TEST_PERCENT


def _files(folder: Path) -> list[str]:
    """Returns paths relative to the folder above `folder`, sorted, from all folders within it."""
    found = []
    for path, _, names in os.walk(folder, onerror=_raise, followlinks=True):
        inside = Path(path).relative_to(folder.parent)
        found += [
            (inside / name).as_posix()
            for name in names
            if not name.startswith(".") and Path(name).suffix.lower() not in _NO_IMAGES
        ]
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _is_class(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith((".", "__"))

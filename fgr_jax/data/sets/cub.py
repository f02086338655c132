"""Caltech-UCSD Birds-200-2011."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import (
    ImageFile,
    Listing,
    check_folders,
    find,
    from_one,
    numbered_lines,
    whole,
)
from fgr_jax.errors import UserError

_PARTS = 15


class Cub(ImageBuilder):
    """CUB-200-2011: 200 species of North American birds.

    Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001, Caltech 2011.
    """

    HOMEPAGE = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
    CLASSES = 200
    COUNTS: ClassVar = {"train": 5994, "test": 5794}
    ARCHIVES = (
        Archive(
            "CUB_200_2011.tgz",
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
            size=1_150_585_339,
            checksum="sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
        ),
    )
    EXTRA_FEATURES: ClassVar = {
        # x, y, width, height, in pixels of the original image.
        "bounding_box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
        # x, y and whether it is visible, in the order of `parts/parts.txt`.
        "part_locations": tfds.features.Tensor(shape=(_PARTS, 3), dtype=np.float32),
    }

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads `CUB_200_2011/`; every annotation file refers to images by number."""
        label_file = find(root, "image_class_labels.txt")
        folder = label_file.parent
        classes = _classes(find(folder, "classes.txt"))
        paths = _by_number(folder / "images.txt")
        tables = {
            file: _by_number(file, fields)
            for file, fields in (
                (label_file, 2),
                (folder / "train_test_split.txt", 2),
                (folder / "bounding_boxes.txt", 5),
            )
        }
        parts = _part_locations(folder / "parts" / "part_locs.txt")
        splits: dict[str, list[ImageFile]] = {"train": [], "test": []}
        labeled = []
        for number, (_, path) in paths.items():
            for file, table in tables.items():
                if number not in table:
                    raise UserError(f"{file} has no entry for image {number}, {path}")
            label, in_training, box = (table[number] for table in tables.values())
            index = from_one(label.value, len(classes), f"{label.where}, image {number}")
            if in_training.value not in ("0", "1"):
                raise UserError(
                    f"{in_training.where}: {in_training.value!r} is neither 1, for training, nor 0"
                )
            extra = {
                "bounding_box": _numbers(box.value.split(), 4, f"{box.where}, image {number}"),
                "part_locations": parts.get(number, np.zeros((_PARTS, 3), np.float32)),
            }
            image = ImageFile(str(folder / "images" / path), index, path, extra)
            splits["train" if in_training.value == "1" else "test"].append(image)
            labeled.append((label.where, path, index))
        check_folders(labeled, {name: label for label, name in enumerate(classes)})
        # "001.Black_footed_Albatross", though "St. Bernard" has no number.
        return Listing([re.sub(r"^\d+\.(?=.)", "", name) for name in classes], splits)


class _Entry(NamedTuple):
    """What a line of an annotation file says."""

    where: str  # file and line, for messages
    value: str


def _classes(path: Path) -> list[str]:
    """Reads `classes.txt`, of lines "1 001.Black_footed_Albatross", and returns "001.Black_…"."""
    entries = _by_number(path)
    by_label = {
        from_one(number, len(entries), entry.where): entry.value
        for number, entry in entries.items()
    }
    return [by_label[label] for label in range(len(entries))]


def _by_number(path: Path, fields: int = 2) -> dict[int, _Entry]:
    """Returns what follows each number in its line.

    Raises:
      UserError: a line does not begin with a number, or two begin with the same.
    """
    entries: dict[int, _Entry] = {}
    for where, (number, *rest) in numbered_lines(path, fields):
        key = _number(number, where)
        entry = _Entry(where, " ".join(rest))
        first = entries.setdefault(key, entry)
        if first is not entry:
            raise UserError(
                f"{where}: number {key} has the value {entry.value!r}, and {first.value!r} in an "
                "earlier line: download it again"
            )
    return entries


def _number(text: str, where: str) -> int:
    try:
        return whole(text)
    except ValueError:
        raise UserError(f"{where}: {text!r} is not a whole number") from None


def _part_locations(path: Path) -> dict[int, Any]:
    """Reads `part_locs.txt`, of lines "image part x y visible"; parts are numbered from 1."""
    locations: dict[int, Any] = {}
    seen = set[tuple[int, int]]()
    if path.is_file():
        for where, (number, part, *values) in numbered_lines(path, 5):
            image, index = _number(number, where), from_one(part, _PARTS, where)
            if (image, index) in seen:
                raise UserError(
                    f"{where}: part {part} of image {number} is in an earlier line, too"
                )
            seen.add((image, index))
            table = locations.setdefault(image, np.zeros((_PARTS, 3), np.float32))
            table[index] = _numbers(values, 3, where)
    return locations


def _numbers(values: Sequence[str], count: int, where: str) -> npt.NDArray[np.float32]:
    try:
        numbers = np.array(values, np.float32)
    except ValueError:
        numbers = np.empty(0, np.float32)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise UserError(f"{where}: {' '.join(values)!r} are not {count} numbers")
    return numbers

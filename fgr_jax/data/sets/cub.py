"""Caltech-UCSD Birds-200-2011."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import ImageFile, Listing, find, from_one, read_lines
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
        class_names = _class_names(find(folder, "classes.txt"))
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
        for number, path in paths.items():
            for file, table in tables.items():
                if number not in table:
                    raise UserError(f"{file} has no entry for image {number}, {path}")
            label, is_training, box = (table[number] for table in tables.values())
            index = from_one(label, len(class_names), f"{label_file}, image {number}")
            extra = {
                "bounding_box": _numbers(
                    box.split(), 4, f"{folder}/bounding_boxes.txt, image {number}"
                ),
                "part_locations": parts.get(number, np.zeros((_PARTS, 3), np.float32)),
            }
            image = ImageFile(str(folder / "images" / path), index, path, extra)
            splits["train" if is_training == "1" else "test"].append(image)
        return Listing(class_names, splits)


def _class_names(path: Path) -> list[str]:
    """Reads `classes.txt`, of lines "1 001.Black_footed_Albatross"."""
    names = _by_number(path)
    by_label = {from_one(number, len(names), str(path)): name for number, name in names.items()}
    if len(by_label) < len(names):
        raise UserError(f"{path} has two classes of the same number: download it again")
    return [by_label[label].partition(".")[2] or by_label[label] for label in range(len(names))]


def _by_number(path: Path, fields: int = 2) -> dict[str, str]:
    """Returns what follows each number in its line."""
    return {number: " ".join(rest) for number, *rest in read_lines(path, fields)}


def _part_locations(path: Path) -> dict[str, Any]:
    """Reads `part_locs.txt`, of lines "image part x y visible"; parts are numbered from 1."""
    locations: dict[str, Any] = {}
    if path.is_file():
        for number, part, x, y, visible in read_lines(path, 5):
            table = locations.setdefault(number, np.zeros((_PARTS, 3), np.float32))
            where = f"{path}, image {number}"
            table[from_one(part, _PARTS, where)] = _numbers((x, y, visible), 3, where)
    return locations


def _numbers(values: Sequence[str], count: int, where: str) -> npt.NDArray[np.float32]:
    try:
        numbers = np.array(values, np.float32)
    except ValueError:
        numbers = np.empty(0, np.float32)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise UserError(f"{where}: {' '.join(values)!r} are not {count} numbers")
    return numbers

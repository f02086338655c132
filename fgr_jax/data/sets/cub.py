"""Caltech-UCSD Birds-200-2011."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from fgr_jax.data.prepare.builder import PictureBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import Listing, Picture, find, from_one, read_lines
from fgr_jax.errors import UserError

_PARTS = 15


class Cub(PictureBuilder):
    """CUB-200-2011: 200 species of North American birds.

    Wah et al., "The Caltech-UCSD Birds-200-2011 Dataset", CNS-TR-2011-001, Caltech 2011.
    """

    HOMEPAGE = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
    CLASSES = 200
    COUNTS: ClassVar[Mapping[str, int]] = {"train": 5994, "test": 5794}
    ARCHIVES: ClassVar[Sequence[Archive]] = (
        Archive(
            "CUB_200_2011.tgz",
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
            size=1_150_585_339,
            checksum="sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
        ),
    )
    EXTRA_FEATURES: ClassVar[Mapping[str, Any]] = {
        # x, y, width, height, in pixels of the original picture.
        "bounding_box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
        # x, y and whether it is visible, in the order of `parts/parts.txt`.
        "part_locations": tfds.features.Tensor(shape=(_PARTS, 3), dtype=np.float32),
    }

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads `CUB_200_2011/`; every file of annotations refers to pictures by their number."""
        folder = find(root, "image_class_labels.txt").parent
        class_names = _class_names(find(folder, "classes.txt"))
        paths = _by_number(folder / "images.txt")
        label_file = folder / "image_class_labels.txt"
        labels = {
            number: from_one(label, len(class_names), f"{label_file}, picture {number}")
            for number, label in _by_number(label_file).items()
        }
        is_training = _by_number(folder / "train_test_split.txt")
        boxes = _by_number(folder / "bounding_boxes.txt", fields=5)
        parts = _part_locations(folder / "parts" / "part_locs.txt")
        splits: dict[str, list[Picture]] = {"train": [], "test": []}
        for number, path in paths.items():
            for file, numbers in (
                (label_file, labels),
                (folder / "train_test_split.txt", is_training),
                (folder / "bounding_boxes.txt", boxes),
            ):
                if number not in numbers:
                    raise UserError(f"{file} says nothing of picture {number}, {path}")
            box = np.array(boxes[number].split(), np.float32)
            extra = {
                "bounding_box": box,
                "part_locations": parts.get(number, np.zeros((_PARTS, 3), np.float32)),
            }
            split = "train" if is_training[number] == "1" else "test"
            splits[split].append(
                Picture(str(folder / "images" / path), labels[number], path, extra)
            )
        return Listing(class_names, splits)


def _class_names(path: Path) -> list[str]:
    """`classes.txt` says "1 001.Black_footed_Albatross"."""
    names = _by_number(path)
    by_label = {from_one(number, len(names), str(path)): name for number, name in names.items()}
    return [by_label[label].partition(".")[2] or by_label[label] for label in range(len(names))]


def _by_number(path: Path, fields: int = 2) -> dict[str, str]:
    """What a file says of each number: all that follows it in its line."""
    return {number: " ".join(rest) for number, *rest in read_lines(path, fields)}


def _part_locations(path: Path) -> dict[str, Any]:
    """`part_locs.txt` says "picture part x y visible"; parts are numbered from 1."""
    locations: dict[str, Any] = {}
    if path.is_file():
        for number, part, x, y, visible in read_lines(path, 5):
            table = locations.setdefault(number, np.zeros((_PARTS, 3), np.float32))
            table[from_one(part, _PARTS, str(path))] = float(x), float(y), float(visible)
    return locations

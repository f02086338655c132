"""ImageNet, ILSVRC 2012."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import scipy.io

from fgr_jax.data.prepare.builder import PictureBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import (
    LayoutNotFoundError,
    Listing,
    Picture,
    find,
    find_folder,
    from_one,
    reading_matlab,
)
from fgr_jax.errors import UserError

_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_PATTERN = "n[0-9]" + "?" * 7  # a synset's WordNet number: n01440764


class Imagenet(PictureBuilder):
    """ImageNet, as in ILSVRC 2012: 1,000 classes. The validation pictures are the split "test".

    Classes are in the order of their WordNet numbers, as everywhere but in the original devkit.

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
    """

    HOMEPAGE = "https://www.image-net.org/"
    LICENSE = "for non-commercial research and educational purposes (see image-net.org)"
    CLASSES = 1000
    COUNTS: ClassVar[Mapping[str, int]] = {"train": 1281167, "test": 50000}
    ARCHIVES: ClassVar[Sequence[Archive]] = (
        Archive("ILSVRC2012_img_train.tar"),
        Archive("ILSVRC2012_img_val.tar"),
        Archive("ILSVRC2012_devkit_t12.tar.gz"),
    )
    HOW_TO_GET = (
        "register there, and fetch ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
        "ILSVRC2012_devkit_t12.tar.gz. Name all three, each with --source=, or a folder that holds "
        "train/<class>/ and val/<class>/"
    )

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads folders of classes; validation pictures may lie in one folder, beside the devkit."""
        train = find_folder(root, "ILSVRC2012_img_train", "train")
        numbers = sorted(path.name for path in train.glob(_PATTERN) if path.is_dir())
        labels = {number: label for label, number in enumerate(numbers)}
        pictures = [
            Picture(str(path), labels[number], f"{number}/{path.name}")
            for number in numbers
            for path in sorted((train / number).iterdir())
        ]
        validation = find_folder(root, "ILSVRC2012_img_val", "val")
        words: dict[str, str] = {}
        try:
            synsets = _synsets(find(root, "meta.mat"))
            words = dict(synsets.values())
        except LayoutNotFoundError:
            synsets = {}
        if any(validation.glob(_PATTERN)):
            test = [
                Picture(str(path), labels[path.parent.name], f"{path.parent.name}/{path.name}")
                for path in sorted(validation.glob(_PATTERN + "/*"))
                if path.parent.name in labels
            ]
        else:
            test = _flat(validation, find(root, _TRUTH), synsets, labels)
        return Listing(
            _distinct([words.get(number, number) for number in numbers], numbers),
            {"train": pictures, "test": test},
        )


def _flat(
    folder: Path, truth_file: Path, synsets: Mapping[int, tuple[str, str]], labels: dict[str, int]
) -> list[Picture]:
    """The validation pictures in the order of their names, which is that of the ground truth."""
    truth = truth_file.read_text().split()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if len(files) != len(truth):
        raise UserError(
            f"{folder} holds {len(files):,} pictures and {truth_file} has {len(truth):,} labels: bring "
            "both again"
        )
    pictures = []
    for path, index in zip(files, truth, strict=True):
        number, _ = synsets[from_one(index, len(labels), f"{truth_file}, {path.name}") + 1]
        pictures.append(Picture(str(path), labels[number], path.name))
    return pictures


def _synsets(meta: Path) -> dict[int, tuple[str, str]]:
    """WordNet number and first word, by the devkit's own index."""
    with reading_matlab(meta):
        rows: Any = scipy.io.loadmat(str(meta), squeeze_me=True)["synsets"].reshape(-1)
        return {
            int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"]).partition(",")[0])
            for row in rows
        }


def _distinct(names: list[str], numbers: list[str]) -> list[str]:
    """Two classes of ImageNet are called "crane" and two "maillot": those get their numbers too."""
    return [
        f"{name} ({number})" if names.count(name) > 1 and name != number else name
        for name, number in zip(names, numbers, strict=True)
    ]

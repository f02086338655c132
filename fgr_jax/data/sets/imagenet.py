"""ImageNet, ILSVRC 2012."""

from pathlib import Path
from typing import ClassVar

from fgr_jax.data.image_files import as_text, find_images, look
from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import (
    ImageFile,
    LayoutNotFoundError,
    Listing,
    find,
    from_one,
    read_matlab,
    read_text,
    whole,
)
from fgr_jax.errors import UserError

_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
_PATTERN = "n[0-9]" + "?" * 7  # a synset's WordNet number: n01440764


class Imagenet(ImageBuilder):
    """ImageNet, as in ILSVRC 2012: 1,000 classes. The validation images are the split "test".

    Classes are ordered by WordNet number, as everywhere except in the original devkit.

    Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015.
    """

    HOMEPAGE = "https://www.image-net.org/"
    LICENSE = "for non-commercial research and educational purposes (see image-net.org)"
    CLASSES = 1000
    COUNTS: ClassVar = {"train": 1281167, "test": 50000}
    ARCHIVES = (
        Archive("ILSVRC2012_img_train.tar"),
        Archive("ILSVRC2012_img_val.tar"),
        Archive("ILSVRC2012_devkit_t12.tar.gz"),
    )
    HOW_TO_GET = (
        "register there and download ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and "
        "ILSVRC2012_devkit_t12.tar.gz. Pass each of them with --source=, or a folder that holds "
        "train/<class>/ and val/<class>/"
    )

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads a folder for each class; with the devkit, validation images may be in one folder."""
        train = find(root, "ILSVRC2012_img_train/", "train/")
        numbers = sorted(path.name for path in train.glob(_PATTERN) if path.is_dir())
        labels = {number: label for label, number in enumerate(numbers)}
        validation = find(root, "ILSVRC2012_img_val/", "val/")
        left_out: dict[str, list[str]] = {}
        if any(validation.glob(_PATTERN)):
            test = _of_classes(validation, labels, left_out)
        else:
            test = _flat(validation, find(root, _TRUTH), _synsets(find(root, "meta.mat")), labels)
        try:
            words = dict(_synsets(find(root, "meta.mat")).values())
        except LayoutNotFoundError:
            words = {}
        names = [words.get(number, number) for number in numbers]
        class_names = [  # ImageNet has two classes "crane" and two "maillot"
            f"{name} ({number})" if names.count(name) > 1 else name
            for name, number in zip(names, numbers, strict=True)
        ]
        splits = {"train": _of_classes(train, labels, left_out), "test": test}
        return Listing(class_names, splits, left_out=left_out)


def _of_classes(
    folder: Path, labels: dict[str, int], left_out: dict[str, list[str]]
) -> list[ImageFile]:
    """Returns the images in the folders named after the classes' WordNet numbers."""
    listed = []
    for number, label in labels.items():
        if not (folder / number).is_dir():
            continue
        found = find_images(folder / number)
        listed += [ImageFile(str(path), label, f"{number}/{path.name}") for path in found.files]
        for reason, paths in found.left_out.items():
            left_out.setdefault(reason, []).extend(
                as_text(path.relative_to(folder)) for path in paths
            )
    return listed


def _flat(
    folder: Path, truth_file: Path, synsets: dict[int, tuple[str, str]], labels: dict[str, int]
) -> list[ImageFile]:
    """Returns the validation images in the order of their names, which is that of the ground truth."""
    truth = read_text(truth_file).split()
    files = look(folder).images
    if len(files) != len(truth):
        raise UserError(
            f"{folder} holds {len(files):,} images and {truth_file} has {len(truth):,} labels: "
            "download both again"
        )
    listed = []
    for path, index in zip(files, truth, strict=True):
        where = f"{truth_file}, {path.name}"
        number, _ = synsets.get(from_one(index, len(labels), where) + 1, ("", ""))
        if number not in labels:
            raise UserError(f"{where}: there are no training images of the class {index}, {number}")
        listed.append(ImageFile(str(path), labels[number], path.name))
    return listed


def _synsets(meta: Path) -> dict[int, tuple[str, str]]:
    """Returns WordNet number and first word, by the devkit's own index."""
    synsets: dict[int, tuple[str, str]] = {}
    for index, number, words in read_matlab(
        meta,
        "synsets",
        lambda row: (whole(row["ILSVRC2012_ID"]), str(row["WNID"]), str(row["words"])),
    ):
        synset = (number, words.partition(",")[0])
        first = synsets.setdefault(index, synset)
        if first is not synset:
            raise UserError(
                f"{meta}: {index} is {number}, but {first[0]} before: download it again"
            )
    return synsets

"""Stanford Dogs."""

from pathlib import Path
from typing import ClassVar

from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import (
    ImageFile,
    Listing,
    check_folders,
    find,
    from_one,
    read_matlab,
    whole,
)
from fgr_jax.errors import UserError

_URL = "http://vision.stanford.edu/aditya86/ImageNetDogs/"


class Dogs(ImageBuilder):
    """Stanford Dogs: 120 breeds, from ImageNet.

    Khosla et al., "Novel Dataset for Fine-Grained Image Categorization", FGVC workshop, CVPR 2011.
    """

    HOMEPAGE = _URL
    CLASSES = 120
    COUNTS: ClassVar = {"train": 12000, "test": 8580}
    ARCHIVES = (
        Archive(
            "images.tar",
            url=_URL + "images.tar",
            size=793_579_520,
            checksum="sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
        ),
        Archive(
            "lists.tar",
            url=_URL + "lists.tar",
            size=481_280,
            checksum="sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
        ),
    )

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads `Images/` by the lists `train_list.mat` and `test_list.mat`."""
        folder = find(root, "Images/")
        rows = {split: _rows(find(root, f"{split}_list.mat")) for split in ("train", "test")}
        every = [row for listed in rows.values() for row in listed]
        count = len({label for *_, label in every})
        splits = {
            split: [
                ImageFile(str(folder / name), from_one(label, count, f"{file}, {name}"), name)
                for file, name, label in listed
            ]
            for split, listed in rows.items()
        }
        check_folders(((file, name, label - 1) for file, name, label in every), {})
        # "n02085620-Chihuahua", "n02085782-Japanese_spaniel"
        folders = {label: name.partition("/")[0] for _, name, label in every}
        class_names = [
            folders[label].partition("-")[2] or f"class {label}" for label in range(1, count + 1)
        ]
        return Listing(class_names, splits)


def _rows(file: Path) -> list[tuple[str, str, int]]:
    """Returns the file itself, for messages, with the name and label of each image."""
    names, labels = read_matlab(file, "file_list", str), read_matlab(file, "labels", whole)
    if len(names) != len(labels):
        raise UserError(
            f"{file} has {len(names)} images and {len(labels)} labels: download it again"
        )
    return [(str(file), name, label) for name, label in zip(names, labels, strict=True)]

"""FGVC-Aircraft, by variant."""

from pathlib import Path
from typing import ClassVar

from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import ImageFile, Listing, find, read_lines
from fgr_jax.errors import UserError


class Aircraft(ImageBuilder):
    """FGVC-Aircraft 2013b: 100 variants of aircraft.

    Each image has a banner of 20 pixels at its bottom that names the photographer; the config field
    `data.cut_bottom` cuts it off on reading.

    Maji et al., "Fine-Grained Visual Classification of Aircraft", arXiv:1306.5151, 2013.
    """

    HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/"
    LICENSE = "for non-commercial research purposes only (see the data set's README)"
    CLASSES = 100
    COUNTS: ClassVar = {"train": 6667, "test": 3333}
    ARCHIVES = (
        Archive(
            "fgvc-aircraft-2013b.tar.gz",
            url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            checksum="md5:d4acdd33327262359767eeaa97a4f732",  # the only one that its authors publish
        ),
    )

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads `data/`; the training split is the official train and val together, as in the paper."""
        variants = find(root, "variants.txt")
        class_names = [name for (name,) in read_lines(variants, 1)]
        labels = {name: label for label, name in enumerate(class_names)}
        folder = variants.parent
        splits: dict[str, list[ImageFile]] = {"train": [], "test": []}
        for official, split in (("train", "train"), ("val", "train"), ("test", "test")):
            file = folder / f"images_variant_{official}.txt"
            for number, variant in read_lines(file, 2):
                if variant not in labels:
                    raise UserError(
                        f"{file}: the label {variant!r} of {number} is not in {variants}"
                    )
                name = f"{number}.jpg"
                path = folder / "images" / name
                splits[split].append(ImageFile(str(path), labels[variant], name))
        return Listing(class_names, splits)

"""Stanford Cars."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
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


class Cars(PictureBuilder):
    """Stanford Cars: 196 makes, models and years.

    Krause et al., "3D Object Representations for Fine-Grained Categorization", 3dRR 2013.
    """

    HOMEPAGE = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
    CLASSES = 196
    COUNTS: ClassVar[Mapping[str, int]] = {"train": 8144, "test": 8041}
    ARCHIVES: ClassVar[Sequence[Archive]] = (
        Archive("car_devkit.tgz"),
        Archive("cars_train.tgz"),
        Archive("cars_test.tgz"),
        Archive("cars_test_annos_withlabels.mat"),
    )
    HOW_TO_GET = (
        "the original host is gone. Copies are on Kaggle and archive.org (search for their names): "
        "either car_devkit.tgz, cars_train.tgz, cars_test.tgz and cars_test_annos_withlabels.mat, or "
        "car_ims.tgz and cars_annos.mat. Name all of them, each with --source="
    )

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads the devkit with two folders of pictures, or the one file for one folder."""
        try:
            train_file = find(root, "cars_train_annos.mat")
        except LayoutNotFoundError:
            return _read_single_file(find(root, "cars_annos.mat", "cars_train_annos.mat"), root)
        class_names = _class_names(_load(find(root, "cars_meta.mat"), "class_names"))
        splits = {}
        for split, file, folder in (
            ("train", train_file, find_folder(root, "cars_train")),
            ("test", find(root, "cars_test_annos_withlabels.mat"), find_folder(root, "cars_test")),
        ):
            folder = _innermost(folder)
            splits[split] = [
                Picture(
                    str(folder / name),
                    from_one(label, len(class_names), f"{file}, {name}"),
                    f"cars_{split}/{name}",
                )
                for name, label in (
                    (str(row["fname"]), int(row["class"])) for row in _load(file, "annotations")
                )
            ]
        return Listing(class_names, splits)


def _read_single_file(file: Path, root: Path) -> Listing:
    """`cars_annos.mat`: every picture's path from the folder above `car_ims/`, and its split."""
    class_names = _class_names(_load(file, "class_names"))
    folder = _innermost(find_folder(root, "car_ims"))
    splits: dict[str, list[Picture]] = {"train": [], "test": []}
    for row in _load(file, "annotations"):
        name = str(row["relative_im_path"])
        label = from_one(int(row["class"]), len(class_names), f"{file}, {name}")
        path = folder / PurePosixPath(name).name
        splits["test" if int(row["test"]) else "train"].append(Picture(str(path), label, name))
    return Listing(class_names, splits)


def _innermost(folder: Path) -> Path:
    """`cars_train/cars_train` where an archive was unpacked in a folder of its name."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder


def _load(file: Path, variable: str) -> Any:
    """A variable of a MATLAB file, one-dimensional."""
    with reading_matlab(file):
        return scipy.io.loadmat(str(file), squeeze_me=True)[variable].reshape(-1)


def _class_names(names: Any) -> list[str]:
    return [str(name) for name in names]

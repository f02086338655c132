"""Stanford Cars."""

from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import ImageFile, Listing, find, from_one, read_matlab, whole
from fgr_jax.errors import UserError


class Cars(ImageBuilder):
    """Stanford Cars: 196 makes, models and years.

    Krause et al., "3D Object Representations for Fine-Grained Categorization", 3dRR 2013.
    """

    HOMEPAGE = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
    CLASSES = 196
    COUNTS: ClassVar = {"train": 8144, "test": 8041}
    ARCHIVES = (
        Archive("car_devkit.tgz"),
        Archive("cars_train.tgz"),
        Archive("cars_test.tgz"),
        Archive("cars_test_annos_withlabels.mat"),
    )
    HOW_TO_GET = (
        "the original host no longer exists. Copies are on Kaggle and archive.org (search for the names)"
        ": either car_devkit.tgz, cars_train.tgz, cars_test.tgz and cars_test_annos_withlabels.mat, or "
        "car_ims.tgz and cars_annos.mat. Pass each of them with --source="
    )

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads the devkit with one folder for each split, or the single file with one folder."""
        train_file = find(root, "cars_train_annos.mat", "cars_annos.mat")
        if train_file.name == "cars_annos.mat":
            return _read_single_file(train_file, root)
        class_names = read_matlab(find(root, "cars_meta.mat"), "class_names", str)
        splits = {}
        test_file = find(root, "cars_test_annos_withlabels.mat")
        for split, file in (("train", train_file), ("test", test_file)):
            folder = _innermost(find(root, f"cars_{split}/"))
            splits[split] = [
                ImageFile(
                    str(folder / name),
                    from_one(label, len(class_names), f"{file}, {name}"),
                    f"cars_{split}/{name}",
                )
                for name, label in read_matlab(
                    file, "annotations", lambda row: (str(row["fname"]), whole(row["class"]))
                )
            ]
        return Listing(class_names, splits)


def _read_single_file(file: Path, root: Path) -> Listing:
    """Reads `cars_annos.mat`: every image's path from the folder above `car_ims/`, and its split."""
    class_names = read_matlab(file, "class_names", str)
    folder = _innermost(find(root, "car_ims/"))
    splits: dict[str, list[ImageFile]] = {"train": [], "test": []}

    def convert(row: Any) -> tuple[str, int, int]:
        return str(row["relative_im_path"]), whole(row["class"]), whole(row["test"])

    for name, label, is_test in read_matlab(file, "annotations", convert):
        path = folder / PurePosixPath(name).name
        label = from_one(label, len(class_names), f"{file}, {name}")
        if is_test > 1:
            raise UserError(f"{file}, {name}: 'test' is {is_test}, neither 1 nor 0")
        splits["test" if is_test else "train"].append(ImageFile(str(path), label, name))
    return Listing(class_names, splits)


def _innermost(folder: Path) -> Path:
    """Returns `cars_train/cars_train` where an archive was unpacked in a folder of its own name."""
    inner = folder / folder.name
    return inner if inner.is_dir() else folder

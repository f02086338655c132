"""Small archives in the exact official layout of the paper's data sets, from generated pictures.

What a reader could get wrong is in them: indices from 1, lists that are not in the order of the classes,
numbers with gaps, training and test mixed, names with blanks and slashes, grey and CMYK pictures, a PNG
that is called JPEG.
"""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.io
from PIL import Image


class Record(NamedTuple):
    """A picture, and what the data set says of it."""

    split: str
    name: str
    label: int
    class_name: str
    encoded: bytes
    extra: Mapping[str, Any]


class Written(NamedTuple):
    """What a person would have fetched, and the truth about it."""

    archives: list[Path]
    records: list[Record]
    class_names: list[str]


def picture(seed: int, label: int, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    """40×48 pixels of noise with a square whose brightness is the class."""
    pixels = np.random.default_rng(seed).integers(60, 120, (40, 48, 3), np.uint8)
    pixels[8:24, 8:24] = 40 * label % 256
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def _tar(path: Path, members: Mapping[str, bytes]) -> Path:
    mode = "w" if path.suffix == ".tar" else "w:gz"
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]
        folders: set[str] = set()
        for name, content in members.items():
            for folder in reversed(Path(name).parents):
                if str(folder) not in folders | {"."}:
                    folders.add(str(folder))
                    info = tarfile.TarInfo(f"{folder}/")
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    opened.addfile(info)
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def _lines(rows: list[Any]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def _mat(**variables: Any) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables)
    return buffer.getvalue()


def _structs(rows: list[dict[str, Any]]) -> Any:
    """A 1×N struct array, as MATLAB saves it."""
    array = np.empty((1, len(rows)), [(name, object) for name in rows[0]])
    for index, row in enumerate(rows):
        for name, value in row.items():
            array[name][0, index] = value
    return array


def _cells(texts: list[str], *, column: bool = False) -> Any:
    array = np.empty((len(texts), 1) if column else (1, len(texts)), object)
    array.reshape(-1)[:] = texts
    return array


def write_cub(folder: Path) -> Written:
    """`CUB_200_2011.tgz`: everything refers to pictures by their number in `images.txt`."""
    names = ["Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross", "Groove_billed_Ani"]
    counts = [5, 4, 6, 5]
    rng = np.random.default_rng(0)
    records: list[Record] = []
    files: dict[str, bytes] = {"attributes.txt": _lines(["1 has_bill_shape::curved"])}
    root = "CUB_200_2011"
    images, labels, splits, boxes, parts = [], [], [], [], []
    number = 0
    for label, (name, count) in enumerate(zip(names, counts, strict=True)):
        for index in range(count):
            number += 1
            mode = "L" if number == 3 else "RGB"
            data = picture(number, label, mode=mode)
            path = f"{label + 1:03}.{name}/{name}_{index * 7 + 1:04}_{796111 + number * 13}.jpg"
            split = "test" if number % 3 == 0 else "train"
            box = tuple(float(value) for value in rng.integers(1, 40, 4))
            locations = [
                (float(x), float(y), float(visible))
                for x, y, visible in zip(
                    rng.integers(0, 48, 15),
                    rng.integers(0, 40, 15),
                    rng.integers(0, 2, 15),
                    strict=True,
                )
            ]
            images.append(f"{number} {path}")
            labels.append(f"{number} {label + 1}")
            splits.append(f"{number} {int(split == 'train')}")
            boxes.append(f"{number} " + " ".join(map(str, box)))
            parts += [
                f"{number} {part} {x} {y} {int(visible)}"
                for part, (x, y, visible) in enumerate(locations, start=1)
            ]
            files[f"{root}/images/{path}"] = data
            extra = {"bounding_box": box, "parts": locations}
            records.append(Record(split, path, label, name, data, extra))
    files |= {
        f"{root}/README": b"Caltech-UCSD Birds 200 (2011)\n",
        f"{root}/images.txt": _lines(images),
        f"{root}/image_class_labels.txt": _lines(labels),
        f"{root}/train_test_split.txt": _lines(splits),
        f"{root}/classes.txt": _lines(
            [f"{label} {label:03}.{name}" for label, name in enumerate(names, start=1)]
        ),
        f"{root}/bounding_boxes.txt": _lines(boxes),
        f"{root}/parts/parts.txt": _lines([f"{part} part {part}" for part in range(1, 16)]),
        f"{root}/parts/part_locs.txt": _lines(parts),
        f"{root}/attributes/certainties.txt": _lines(["1 not visible"]),
    }
    return Written([_tar(folder / "CUB_200_2011.tgz", files)], records, names)


_CARS = [
    "AM General Hummer SUV 2000",
    "Acura RL Sedan 2012",
    "Ram C/V Cargo Van Minivan 2012",
    "smart fortwo Convertible 2012",
]


def _car_rows(count: int, seed: int) -> list[int]:
    """Labels in no order, every class among them."""
    return list(np.random.default_rng(seed).permutation(np.arange(count) % len(_CARS)))


def _car_box(label: int) -> dict[str, Any]:
    box = {"bbox_x1": 3, "bbox_y1": 4, "bbox_x2": 40, "bbox_y2": 30}
    return {**box, "class": np.uint8(label + 1)}


def write_cars_devkit(folder: Path) -> Written:
    """The devkit's MATLAB files beside `cars_train/` and `cars_test/`, each numbered from 1."""
    records: list[Record] = []
    pictures: dict[str, dict[str, bytes]] = {"train": {}, "test": {}}
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for split, count in (("train", 11), ("test", 7)):
        for index, label in enumerate(_car_rows(count, seed=count), start=1):
            data = picture(100 * count + index, label)
            file_name = f"{index:05}.jpg"
            pictures[split][f"cars_{split}/{file_name}"] = data
            rows[split].append({**_car_box(label), "fname": file_name})
            records.append(
                Record(split, f"cars_{split}/{file_name}", int(label), _CARS[label], data, {})
            )
    unlabelled = [{k: v for k, v in row.items() if k != "class"} for row in rows["test"]]
    devkit = {
        "devkit/README.txt": b"Cars\n",
        "devkit/cars_meta.mat": _mat(class_names=_cells(_CARS)),
        "devkit/cars_train_annos.mat": _mat(annotations=_structs(rows["train"])),
        "devkit/cars_test_annos.mat": _mat(annotations=_structs(unlabelled)),
    }
    with_labels = folder / "cars_test_annos_withlabels.mat"
    with_labels.write_bytes(_mat(annotations=_structs(rows["test"])))
    return Written(
        [
            _tar(folder / "car_devkit.tgz", devkit),
            _tar(folder / "cars_train.tgz", pictures["train"]),
            _tar(folder / "cars_test.tgz", pictures["test"]),
            with_labels,
        ],
        records,
        _CARS,
    )


def write_cars_single_file(folder: Path) -> Written:
    """`car_ims.tgz` and `cars_annos.mat`, in which a column says what is for testing."""
    records, rows, pictures = [], [], {}
    for index, label in enumerate(_car_rows(18, seed=5), start=1):
        data = picture(index, label)
        name = f"car_ims/{index:06}.jpg"
        test = index % 3 == 1
        pictures[name] = data
        rows.append({"relative_im_path": name, **_car_box(label), "test": np.uint8(test)})
        split = "test" if test else "train"
        records.append(Record(split, name, int(label), _CARS[label], data, {}))
    annotations = folder / "cars_annos.mat"
    annotations.write_bytes(_mat(annotations=_structs(rows), class_names=_cells(_CARS)))
    return Written([_tar(folder / "car_ims.tgz", pictures), annotations], records, _CARS)


def write_aircraft(folder: Path) -> Written:
    """`fgvc-aircraft-2013b.tar.gz`; the banner at the bottom is white with black writing."""
    names = ["707-320", "A300B4", "DHC-8-100", "F/A-18", "Hawk T1"]
    rng = np.random.default_rng(1)
    root = "fgvc-aircraft-2013b/data"
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    records, files = [], {}
    for index in range(30):
        label = int(rng.integers(len(names))) if index >= 15 else index % 5
        split = ("train", "val", "test")[(index // 5) % 3]
        pixels = rng.integers(0, 100, (60, 48, 3)).astype(np.uint8)
        pixels[-20:] = 255
        pixels[-12:-8, ::3] = 0
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG")
        number = f"{(1025794 + index * 9973) % 2270000:07}"
        files[f"{root}/images/{number}.jpg"] = buffer.getvalue()
        lists[split].append(f"{number} {names[label]}")
        ours = "test" if split == "test" else "train"
        records.append(Record(ours, f"{number}.jpg", label, names[label], buffer.getvalue(), {}))
    files |= {
        f"{root}/variants.txt": _lines(names),
        f"{root}/families.txt": _lines(["Boeing 707"]),
        f"{root}/images_variant_trainval.txt": _lines(lists["train"] + lists["val"]),
        f"{root}/images_family_train.txt": _lines(["1025794 Boeing 707"]),
        "fgvc-aircraft-2013b/README.md": b"FGVC-Aircraft Benchmark\n",
    }
    for split, rows in lists.items():
        files[f"{root}/images_variant_{split}.txt"] = _lines(rows)
    return Written([_tar(folder / "fgvc-aircraft-2013b.tar.gz", files)], records, names)


def write_dogs(folder: Path) -> Written:
    """`images.tar` and `lists.tar`, with MATLAB lists of cells and labels from 1."""
    folders = ["n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog"]
    names = [name.partition("-")[2] for name in folders]
    records, images = [], {}
    lists: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for index in range(21):
        label = (index * 5 + index // 7) % 3
        split = "test" if index % 3 == 2 else "train"
        name = f"{folders[label]}/{folders[label].partition('-')[0]}_{10074 + 31 * index}.jpg"
        data = picture(300 + index, label)
        images[f"Images/{name}"] = data
        lists[split].append((name, label))
        records.append(Record(split, name, label, names[label], data, {}))
    members = {}
    for split, rows in [*lists.items(), ("file", lists["train"] + lists["test"])]:
        paths = [name for name, _ in rows]
        members[f"{split}_list.mat"] = _mat(
            file_list=_cells(paths, column=True),
            annotation_list=_cells([path.removesuffix(".jpg") for path in paths], column=True),
            labels=np.array([[label + 1] for _, label in rows], np.uint8),
        )
    return Written(
        [_tar(folder / "images.tar", images), _tar(folder / "lists.tar", members)], records, names
    )


def write_gtos_mobile(folder: Path) -> Written:
    """A zip of `gtos-mobile/train/<class>/` and `gtos-mobile/test/<class>/`."""
    names = ["Asphalt", "brick", "dry_leaf", "stone_asphalt"]
    records = []
    archive = folder / "gtos-mobile.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for split, count in (("train", 3), ("test", 2)):
            opened.writestr(f"gtos-mobile/{split}/", b"")
            for label, name in enumerate(names):
                opened.writestr(f"gtos-mobile/{split}/{name}/", b"")
                for index in range(count + label):
                    data = picture(1000 * label + 10 * index + (split == "test"), label)
                    file = f"{name}/{split}_{index:05}.jpg"
                    opened.writestr(f"gtos-mobile/{split}/{file}", data)
                    records.append(Record(split, file, label, name, data, {}))
    return Written([archive], records, names)


def write_imagenet(folder: Path) -> Written:
    """A tar of tars, a flat tar, and the devkit, whose own indices are in another order."""
    # WordNet number, the devkit's index, words, children; the last is no class of the challenge.
    synsets = [
        ("n02119789", 1, "kit fox, Vulpes macrotis", 0),
        ("n02012849", 2, "crane", 0),
        ("n01440764", 3, "tench, Tinca tinca", 0),
        ("n03126707", 4, "crane", 0),
        ("n00001740", 1001, "entity", 4),
    ]
    classes = sorted(row for row in synsets if row[3] == 0)
    repeated = {"crane"}
    names = [
        f"{word} ({number})" if word in repeated else word
        for number, word in ((row[0], row[2].partition(",")[0]) for row in classes)
    ]
    records, train = [], {}
    for label, (number, *_) in enumerate(classes):
        members = {}
        for index in range(3 + label):
            seed = 50 * label + index
            data = picture(seed, label)
            if (label, index) == (1, 0):
                data = picture(seed, label, mode="CMYK")
            if (label, index) == (2, 1):
                data = picture(seed, label, kind="PNG")
            file = f"{number}_{index * 17 + 26}.JPEG"
            members[file] = data
            records.append(Record("train", f"{number}/{file}", label, names[label], data, {}))
        inner = _tar(folder / f"{number}.tar", members)
        train[inner.name] = inner.read_bytes()
        inner.unlink()
    validation, truth = {}, []
    for index, label in enumerate([2, 0, 3, 1, 1, 0, 2, 3, 3], start=1):
        file = f"ILSVRC2012_val_{index:08}.JPEG"
        validation[file] = picture(900 + index, label)
        truth.append(classes[label][1])
        records.append(Record("test", file, label, names[label], validation[file], {}))
    rows = [
        {
            "ILSVRC2012_ID": float(index),
            "WNID": number,
            "words": words,
            "gloss": "as in WordNet",
            "num_children": float(children),
            "children": np.zeros((1, 0)),
            "wordnet_height": 0.0,
            "num_train_images": 1300.0,
        }
        for number, index, words, children in synsets
    ]
    array = _structs(rows).reshape(-1, 1)
    devkit = {
        "ILSVRC2012_devkit_t12/readme.txt": b"ILSVRC2012\n",
        "ILSVRC2012_devkit_t12/data/meta.mat": _mat(synsets=array),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": _lines(truth),
    }
    return Written(
        [
            _tar(folder / "ILSVRC2012_img_train.tar", train),
            _tar(folder / "ILSVRC2012_img_val.tar", validation),
            _tar(folder / "ILSVRC2012_devkit_t12.tar.gz", devkit),
        ],
        records,
        names,
    )

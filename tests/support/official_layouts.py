"""Small archives in the exact official layout of public data sets, from generated pictures.

Every function writes what a person would have fetched, and returns the truth about it. It knows
nothing of the readers it is there to test. What a reader could get wrong is in the archives:
indices from 1, file numbers with gaps and leading zeros, lists in another order than the files,
training and test mixed, classes of unequal size, names with blanks, slashes and hyphens, gray and
CMYK pictures, and a PNG that is called JPEG.

The arguments `train`, `validation` and `test` are the least numbers of pictures of a class; some
classes get one or two more.
"""

import colorsys
import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import cv2
import numpy as np
import scipy.io

T = TypeVar("T")

BANNER = 20  # rows at the bottom of every picture of FGVC-Aircraft


class Record(NamedTuple):
    """A picture, and what the data set says of it."""

    split: str
    name: str
    label: int
    class_name: str
    encoded: bytes
    extra: Mapping[str, Any]


class Written(NamedTuple):
    """What a person would have fetched, and the truth about it.

    The records are in the order of the official lists, training before test.
    """

    archives: list[Path]
    records: list[Record]
    class_names: list[str]


# Pictures


def _pixels(label: int, number: int, size: tuple[int, int], seed: int) -> np.ndarray:
    """Dark noise with a square in the color of the class; hardly anything is brighter than 110."""
    rng = np.random.default_rng((seed, number))
    pixels = rng.integers(10, 60, (*size, 3), np.uint8)
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618 % 1, 0.8, 110)
    height, width = size
    pixels[height // 8 : height // 2, width // 4 : 3 * width // 4] = blue, green, red
    return pixels


def _encode(pixels: np.ndarray, suffix: str = ".jpg") -> bytes:
    """The bytes of a JPEG, whose blocks are 8×8 in every channel, or of a PNG."""
    options = []
    if suffix == ".jpg":
        options = [cv2.IMWRITE_JPEG_QUALITY, 75]
        options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    encoded = cv2.imencode(suffix, pixels, options)[1]
    return encoded.tobytes()


def _grey(pixels: np.ndarray) -> bytes:
    return _encode(pixels[..., 1].copy())


def _cmyk(pixels: np.ndarray) -> bytes:
    """A JPEG of four channels, or an ordinary one where Pillow is missing."""
    try:
        from PIL import Image
    except ImportError:
        return _encode(pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., ::-1].copy()).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def _with_banner(pixels: np.ndarray, number: int) -> np.ndarray:
    """White rows at the bottom, with black noise for the writing."""
    pixels = pixels.copy()
    writing = np.random.default_rng(number).random((BANNER, pixels.shape[1])) < 0.2
    pixels[-BANNER:] = np.where(writing, 0, 255)[..., None]
    return pixels


# Files


def _tar(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar, compressed unless it is called so, with an entry for every folder before its files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        known = {"."}
        for name, content in members.items():
            for folder in reversed([str(parent) for parent in Path(name).parents]):
                if folder not in known:
                    known.add(folder)
                    entry = tarfile.TarInfo(folder)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    packed.addfile(entry)
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            packed.addfile(entry, io.BytesIO(content))
    content = buffer.getvalue()
    path.write_bytes(content if path.suffix == ".tar" else gzip.compress(content))
    return path


def _lines(rows: Iterable[object]) -> bytes:
    """Rows that all end in a newline, the last too."""
    return "".join(f"{row}\n" for row in rows).encode()


def _mat(**variables: Any) -> bytes:
    """A MATLAB 5 file, compressed as MATLAB writes it."""
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, variables, do_compression=True, oned_as="column")
    return buffer.getvalue()


def _number(value: int) -> np.ndarray:
    """1×1 of the smallest type: MATLAB stores whole doubles so, and scipy reads them as that."""
    return np.array([[value]], np.uint8 if value < 256 else np.uint16)


def _structs(rows: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> np.ndarray:
    """A MATLAB struct array whose fields are in the order of the rows' keys."""
    structs = np.empty(len(rows), [(name, object) for name in rows[0]])
    for index, row in enumerate(rows):
        structs[index] = tuple(row.values())
    return structs.reshape(shape)


def _cells(texts: Sequence[str], shape: tuple[int, int]) -> np.ndarray:
    """A MATLAB cell array of texts."""
    cells = np.empty(len(texts), object)
    cells[:] = texts
    return cells.reshape(shape)


# Numbers and orders


def _count(least: int, label: int) -> int:
    return least + (0, 2, 1)[label % 3] if least else 0


def _mixed(label: int, rng: np.random.Generator, **least: int) -> list[str]:
    """The splits of a class's pictures, mixed."""
    splits = [split for split, count in least.items() for _ in range(_count(count, label))]
    return [splits[index] for index in rng.permutation(len(splits))]


def _gapped(count: int, rng: np.random.Generator, first: int, step: int) -> list[int]:
    """Different numbers with gaps, in no order."""
    numbers = first + np.cumsum(rng.integers(1, step, count))
    return [int(number) for number in rng.permutation(numbers)]


def _shuffled(rows: Iterable[T], rng: np.random.Generator) -> list[T]:
    listed = list(rows)
    return [listed[index] for index in rng.permutation(len(listed))]


def _by_split(records: Iterable[Record]) -> list[Record]:
    """Training before test, otherwise as they are."""
    return sorted(records, key=lambda record: record.split != "train")


def _first(known: Sequence[str], count: int, generated: str) -> list[str]:
    """The first `count` known names, and generated ones beyond."""
    return [*known[:count], *(generated.format(n) for n in range(len(known) + 1, count + 1))]


# Caltech-UCSD Birds-200-2011

_BIRDS = [
    "Black_footed_Albatross",
    "Laysan_Albatross",
    "Sooty_Albatross",
    "Groove_billed_Ani",
    "Crested_Auklet",
    "Least_Auklet",
    "Parakeet_Auklet",
    "Rhinoceros_Auklet",
    "Brewer_Blackbird",
    "Red_winged_Blackbird",
]
_PARTS = [
    *("back", "beak", "belly", "breast", "crown", "forehead", "left eye", "left leg", "left wing"),
    *("nape", "right eye", "right leg", "right wing", "tail", "throat"),
]


def _parts(rng: np.random.Generator, size: tuple[int, int]) -> list[tuple[float, float, float]]:
    """One place of every part; a part that is not visible is at 0, 0."""
    height, width = size
    parts = []
    for _ in _PARTS:
        visible = bool(rng.random() < 0.7)
        place = (float(rng.integers(1, width)), float(rng.integers(1, height)))
        parts.append((*place, 1.0) if visible else (0.0, 0.0, 0.0))
    return parts


def _cub_records(
    names: Sequence[str], train: int, test: int, size: tuple[int, int], seed: int
) -> list[Record]:
    """By class; the last number of a file's name goes up through all of the data set."""
    rng = np.random.default_rng(seed)
    height, width = size
    records: list[Record] = []
    for label, name in enumerate(names):
        splits = _mixed(label, rng, train=train, test=test)
        for count, split in zip(_gapped(len(splits), rng, 0, 12), splits, strict=True):
            number = len(records)
            # The files have capitals where the folders have none.
            file = f"{name.title()}_{count:04}_{18 + 16 * number + label}.jpg"
            pixels = _pixels(label, number, size, seed)
            box = rng.integers(1, (width // 2, height // 2, width // 2, height // 2))
            extra = {"bounding_box": tuple(map(float, box)), "parts": _parts(rng, size)}
            encoded = _grey(pixels) if number == 2 else _encode(pixels)
            path = f"{label + 1:03}.{name}/{file}"
            records.append(Record(split, path, label, name, encoded, extra))
    return records


def write_cub(
    folder: Path,
    *,
    classes: int = 4,
    train: int = 3,
    test: int = 2,
    size: tuple[int, int] = (40, 48),
    seed: int = 0,
    shuffled: bool = True,
) -> Written:
    """`CUB_200_2011.tgz`: `attributes.txt` beside the folder `CUB_200_2011`.

    Every list is of lines that begin with a number, from 1, with single blanks:

    - `images.txt`: `1 001.A_b/A_B_0046_18.jpg`
    - `image_class_labels.txt`: `1 1`
    - `train_test_split.txt`: `1 0`, where 1 is training
    - `classes.txt`: `1 001.A_b`
    - `bounding_boxes.txt`: `1 60.0 27.0 325.0 304.0`, which are x, y, width and height
    - `parts/parts.txt`: `7 left eye`
    - `parts/part_locs.txt`: `1 2 312.0 182.0 1`, which are picture, part, x, y and visible

    In the original the numbers of all lists go up; here each list is in an order of its own,
    unless `shuffled` is false.
    """
    names = _first(_BIRDS, classes, "Generated_bird_{:03}")
    rng = np.random.default_rng((seed, 1))
    numbered = list(enumerate(_cub_records(names, train, test, size, seed), start=1))
    listed = _shuffled(numbered, rng) if shuffled else numbered

    def rows(lines: Iterable[str]) -> bytes:
        return _lines(_shuffled(lines, rng) if shuffled else lines)

    lists = {
        "bounding_boxes.txt": rows(
            f"{n} " + " ".join(str(side) for side in record.extra["bounding_box"])
            for n, record in numbered
        ),
        "classes.txt": rows(f"{n} {n:03}.{name}" for n, name in enumerate(names, start=1)),
        "image_class_labels.txt": rows(f"{n} {record.label + 1}" for n, record in numbered),
        "images.txt": _lines(f"{n} {record.name}" for n, record in listed),
        "train_test_split.txt": rows(f"{n} {int(r.split == 'train')}" for n, r in numbered),
        "README": b"The Caltech-UCSD Birds-200-2011 Dataset\n",
        "attributes/certainties.txt": _lines(
            ["1 not visible", "2 guessing", "3 probably", "4 definitely"]
        ),
        "attributes/class_attribute_labels_continuous.txt": _lines(["0.0 1.5"] * classes),
        "attributes/image_attribute_labels.txt": _lines(f"{n} 1 0 3 27.708" for n, _ in numbered),
        "parts/part_click_locs.txt": _lines(f"{n} 1 0.0 0.0 0 2.329" for n, _ in numbered),
        "parts/part_locs.txt": rows(
            f"{n} {part} {x} {y} {int(visible)}"
            for n, record in numbered
            for part, (x, y, visible) in enumerate(record.extra["parts"], start=1)
        ),
        "parts/parts.txt": rows(f"{n} {part}" for n, part in enumerate(_PARTS, start=1)),
    }
    files = {
        "attributes.txt": _lines(["1 has_bill_shape::curved_(up_or_down)"]),
        **{f"CUB_200_2011/{name}": content for name, content in lists.items()},
        **{f"CUB_200_2011/images/{r.name}": r.encoded for _, r in _shuffled(numbered, rng)},
    }
    archive = _tar(folder / "CUB_200_2011.tgz", files)
    return Written([archive], _by_split(record for _, record in listed), names)


# Stanford Cars

_CARS = [
    "AM General Hummer SUV 2000",
    "Acura RL Sedan 2012",
    "Ram C/V Cargo Van Minivan 2012",
    "smart fortwo Convertible 2012",
]
_CAR = "Generated Car Sedan {:04}"


def _car_box(rng: np.random.Generator, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The corners of a box, from 1."""
    height, width = size
    left, right = sorted(rng.choice(np.arange(1, width + 1), 2, replace=False))
    top, bottom = sorted(rng.choice(np.arange(1, height + 1), 2, replace=False))
    box = {"bbox_x1": left, "bbox_y1": top, "bbox_x2": right, "bbox_y2": bottom}
    return {name: _number(int(value)) for name, value in box.items()}


def _car_rows(
    records: Sequence[Record], size: tuple[int, int], rng: np.random.Generator
) -> list[dict[str, Any]]:
    """What the devkit says of the pictures of one folder; the file is named without the folder."""
    return [
        {
            **_car_box(rng, size),
            "class": _number(record.label + 1),
            "fname": record.name.rpartition("/")[2],
        }
        for record in records
    ]


def write_cars_devkit(
    folder: Path,
    *,
    classes: int = 4,
    train: int = 3,
    test: int = 2,
    size: tuple[int, int] = (40, 48),
    seed: int = 0,
) -> Written:
    """`car_devkit.tgz`, `cars_train.tgz`, `cars_test.tgz`, and `cars_test_annos_withlabels.mat`.

    The pictures of each folder are `00001.jpg` and so on, the classes in no order. The MATLAB files
    have a 1×N struct array `annotations` with `bbox_x1`, `bbox_y1`, `bbox_x2`, `bbox_y2`, `class`
    (from 1; not in `cars_test_annos.mat`) and `fname`; `cars_meta.mat` has the 1×C cells
    `class_names`.
    """
    rng = np.random.default_rng(seed)
    names = _first(_CARS, classes, _CAR)
    records: dict[str, list[Record]] = {"train": [], "test": []}
    for split, least in (("train", train), ("test", test)):
        labels = [label for label in range(classes) for _ in range(_count(least, label))]
        for index, label in enumerate(_shuffled(labels, rng), start=1):
            pixels = _pixels(label, index + 10_000 * (split == "test"), size, seed)
            encoded = _grey(pixels) if (split, index) == ("train", 3) else _encode(pixels)
            name = f"cars_{split}/{index:05}.jpg"
            records[split].append(Record(split, name, label, names[label], encoded, {}))
    rows = {split: _car_rows(of_split, size, rng) for split, of_split in records.items()}
    unlabeled = [{k: v for k, v in row.items() if k != "class"} for row in rows["test"]]
    devkit = {
        "README.txt": b"This file gives documentation for the cars 196 dataset.\n",
        "cars_meta.mat": _mat(class_names=_cells(names, (1, -1))),
        "cars_test_annos.mat": _mat(annotations=_structs(unlabeled, (1, -1))),
        "cars_train_annos.mat": _mat(annotations=_structs(rows["train"], (1, -1))),
        "eval_train.m": b"function [accuracy, confusion_matrix] = eval_train(pred_file)\n",
        "train_perfect_preds.txt": _lines(record.label + 1 for record in records["train"]),
    }
    with_labels = folder / "cars_test_annos_withlabels.mat"
    with_labels.write_bytes(_mat(annotations=_structs(rows["test"], (1, -1))))
    return Written(
        [
            _tar(folder / "car_devkit.tgz", {f"devkit/{k}": v for k, v in devkit.items()}),
            *(
                _tar(
                    folder / f"cars_{split}.tgz",
                    {record.name: record.encoded for record in _shuffled(of_split, rng)},
                )
                for split, of_split in records.items()
            ),
            with_labels,
        ],
        records["train"] + records["test"],
        names,
    )


def write_cars_single_file(
    folder: Path,
    *,
    classes: int = 4,
    train: int = 3,
    test: int = 2,
    size: tuple[int, int] = (40, 48),
    seed: int = 0,
) -> Written:
    """`car_ims.tgz` and `cars_annos.mat`, which has one list for both splits, by class.

    Its 1×N struct array `annotations` has `relative_im_path` (`car_ims/000001.jpg`), the corners of
    the box, `class` (from 1) and `test` (0 or 1); its 1×C cells `class_names` are the names.
    """
    rng = np.random.default_rng(seed)
    names = _first(_CARS, classes, _CAR)
    records: list[Record] = []
    rows = []
    for label, class_name in enumerate(names):
        for split in _mixed(label, rng, train=train, test=test):
            number = len(records) + 1
            name = f"car_ims/{number:06}.jpg"
            pixels = _pixels(label, number, size, seed)
            encoded = _grey(pixels) if number == 3 else _encode(pixels)
            records.append(Record(split, name, label, class_name, encoded, {}))
            row = {"relative_im_path": name, **_car_box(rng, size)}
            rows.append({**row, "class": _number(label + 1), "test": _number(int(split == "test"))})
    annotations = folder / "cars_annos.mat"
    annotations.write_bytes(
        _mat(annotations=_structs(rows, (1, -1)), class_names=_cells(names, (1, -1)))
    )
    pictures = {record.name: record.encoded for record in _shuffled(records, rng)}
    return Written([_tar(folder / "car_ims.tgz", pictures), annotations], _by_split(records), names)


# FGVC-Aircraft

_AIRCRAFT = {  # variant, family, manufacturer
    "707-320": ("Boeing 707", "Boeing"),
    "F/A-18": ("F/A-18", "McDonnell Douglas"),
    "Cessna 172": ("Cessna 172", "Cessna"),
    "F-16A/B": ("F-16", "Lockheed Martin"),
    "BAE 146-200": ("BAE 146", "British Aerospace"),
    "Hawk T1": ("Hawk T1", "British Aerospace"),
    "737-200": ("Boeing 737", "Boeing"),
}


def _aircraft_lists(listed: Mapping[str, Sequence[Record]]) -> dict[str, bytes]:
    """`images_variant_train.txt` and its like, of lines `1025794 707-320`."""
    files = {}
    for split, records in listed.items():
        for kind in ("variant", "family", "manufacturer"):
            rows = []
            for record in records:
                known = _AIRCRAFT.get(record.class_name, (record.class_name, "Generated"))
                name = {"family": known[0], "manufacturer": known[1]}.get(kind, record.class_name)
                rows.append(f"{record.name.removesuffix('.jpg')} {name}")
            files[f"images_{kind}_{split}.txt"] = _lines(rows)
        numbers = [record.name.removesuffix(".jpg") for record in records]
        files[f"images_{split}.txt"] = _lines(numbers)
    return files


def write_aircraft(
    folder: Path,
    *,
    classes: int = 4,
    train: int = 3,
    validation: int = 2,
    test: int = 2,
    size: tuple[int, int] = (60, 48),
    seed: int = 0,
) -> Written:
    """`fgvc-aircraft-2013b.tar.gz`: lists and `images/` in `fgvc-aircraft-2013b/data`.

    `variants.txt` has the names of the classes, sorted;
    `images_variant_{train,val,trainval,test}.txt` have lines `0056978 F/A-18`, by class: the
    number of the picture, which may begin with zeros, one blank, and the variant, which may have
    blanks. The training pictures of the records are the list `trainval`. The bottom 20 rows of a
    picture are a white banner. (Its edge is sharp in the JPEG where the height less 20 is a
    multiple of 8.)
    """
    rng = np.random.default_rng(seed)
    names = sorted(_first(list(_AIRCRAFT), classes, "Generated {:03}"))
    listed: dict[str, list[Record]] = {"train": [], "val": [], "trainval": [], "test": []}
    splits = [
        _mixed(label, rng, train=train, val=validation, test=test) for label in range(classes)
    ]
    numbers = iter(_gapped(sum(map(len, splits)), rng, 34_309, 99_999))
    for label, (class_name, of_class) in enumerate(zip(names, splits, strict=True)):
        for split in of_class:
            number = next(numbers)
            encoded = _encode(_with_banner(_pixels(label, number, size, seed), number))
            ours = "test" if split == "test" else "train"
            record = Record(ours, f"{number:07}.jpg", label, class_name, encoded, {})
            listed[split].append(record)
            if split != "test":
                listed["trainval"].append(record)
    records = listed["trainval"] + listed["test"]
    height, width = size
    pairs = [_AIRCRAFT.get(name, (name, "Generated")) for name in names]
    data = {
        **{f"images/{r.name}": r.encoded for r in _shuffled(records, rng)},
        **_aircraft_lists(listed),
        "variants.txt": _lines(names),
        "families.txt": _lines(sorted({family for family, _ in pairs})),
        "manufacturers.txt": _lines(sorted({manufacturer for _, manufacturer in pairs})),
        "images_box.txt": _lines(
            f"{record.name.removesuffix('.jpg')} 3 4 {width - 2} {height - BANNER - 2}"
            for record in sorted(records, key=lambda record: record.name)
        ),
    }
    files = {
        "README.md": b"# FGVC-Aircraft Benchmark\n",
        "README.html": b"<h1>FGVC-Aircraft Benchmark</h1>\n",
        "evaluation.m": b"function [confusion, results] = evaluation(varargin)\n",
        **{f"data/{name}": content for name, content in data.items()},
    }
    archive = _tar(
        folder / "fgvc-aircraft-2013b.tar.gz",
        {f"fgvc-aircraft-2013b/{name}": content for name, content in files.items()},
    )
    return Written([archive], records, names)


# Stanford Dogs

_DOGS = [
    "n02085620-Chihuahua",
    "n02085782-Japanese_spaniel",
    "n02098105-soft-coated_wheaten_terrier",
    "n02089078-black-and-tan_coonhound",
    "n02085936-Maltese_dog",
    "n02086079-Pekinese",
    "n02086240-Shih-Tzu",
]


def _dog_list(records: Sequence[Record]) -> bytes:
    """N×1 cells `file_list` and `annotation_list`, and N×1 `labels` from 1."""
    paths = [record.name for record in records]
    return _mat(
        file_list=_cells(paths, (-1, 1)),
        annotation_list=_cells([path.removesuffix(".jpg") for path in paths], (-1, 1)),
        labels=np.array([[record.label + 1] for record in records], np.uint8),
    )


def _dog_annotation(record: Record, size: tuple[int, int]) -> bytes:
    height, width = size
    folder, _, file = record.name.removesuffix(".jpg").partition("/")
    box = f"<xmin>3</xmin><ymin>4</ymin><xmax>{width - 2}</xmax><ymax>{height - 2}</ymax>"
    return (
        f"<annotation>\n\t<folder>{folder.partition('-')[0].removeprefix('n')}</folder>\n"
        f"\t<filename>{file}</filename>\n\t<size>\n\t\t<width>{width}</width>\n"
        f"\t\t<height>{height}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<object>\n\t\t<name>{record.class_name}</name>\n"
        f"\t\t<bndbox>{box}</bndbox>\n\t</object>\n</annotation>"
    ).encode()


def write_dogs(
    folder: Path,
    *,
    classes: int = 4,
    train: int = 3,
    test: int = 2,
    size: tuple[int, int] = (40, 48),
    seed: int = 0,
) -> Written:
    """`images.tar`, `annotation.tar` and `lists.tar`, all without compression.

    `Images/n02085620-Chihuahua/n02085620_10074.jpg` has its boxes in the XML file
    `Annotation/n02085620-Chihuahua/n02085620_10074`, which has no ending. The lists,
    `train_list.mat`, `test_list.mat` and `file_list.mat` (all), are in no folder; they are by
    class, in the order of the folders, and the first two in no order within a class.
    """
    rng = np.random.default_rng(seed)
    folders = sorted(_first(_DOGS, classes, "n0990{0:04}-generated_dog_{0}"))
    names = [name.partition("-")[2] for name in folders]
    records: list[Record] = []
    for label, (class_folder, class_name) in enumerate(zip(folders, names, strict=True)):
        splits = _mixed(label, rng, train=train, test=test)
        for number, split in zip(_gapped(len(splits), rng, 500, 4000), splits, strict=True):
            name = f"{class_folder}/{class_folder.partition('-')[0]}_{number}.jpg"
            encoded = _encode(_pixels(label, len(records), size, seed))
            records.append(Record(split, name, label, class_name, encoded, {}))
    ordered = _by_split(records)
    by_name = sorted(records, key=lambda record: record.name)
    lists = {
        "file_list.mat": _dog_list(by_name),
        "test_list.mat": _dog_list([r for r in ordered if r.split == "test"]),
        "train_list.mat": _dog_list([r for r in ordered if r.split == "train"]),
    }
    annotations = {
        f"Annotation/{record.name.removesuffix('.jpg')}": _dog_annotation(record, size)
        for record in by_name
    }
    archives = [
        _tar(folder / "images.tar", {f"Images/{r.name}": r.encoded for r in by_name}),
        _tar(folder / "lists.tar", lists),
        _tar(folder / "annotation.tar", annotations),
    ]
    return Written(archives, ordered, names)


# GTOS-mobile

_TERRAINS = ["sandPaper", "aluminum", "Painting", "sand", "asphalt", "brick", "stone_asphalt"]


def write_gtos_mobile(
    folder: Path,
    *,
    classes: int = 4,
    train: int = 3,
    test: int = 2,
    size: tuple[int, int] = (40, 48),
    seed: int = 0,
) -> Written:
    """`gtos-mobile.zip`: `gtos-mobile/{train,test}/<class>/*.jpg`, and no list.

    The classes are the folders in the order of their codes, capitals first. The authors share the
    data set by a link to a drive, so that the name of the archive is a guess; that of the folder is
    from their code.
    """
    rng = np.random.default_rng(seed)
    names = sorted(_first(_TERRAINS, classes, "terrain_{:02}"))
    records: list[Record] = []
    for split, least in (("train", train), ("test", test)):
        for label, class_name in enumerate(names):
            numbers = sorted(_gapped(_count(least, label), rng, 0, 300))
            for number in numbers:
                unique = len(records)
                prefix = "256_" if split == "train" else ""
                name = f"{class_name}/{prefix}{class_name}_{number:05}.jpg"
                encoded = _encode(_pixels(label, unique, size, seed))
                records.append(Record(split, name, label, class_name, encoded, {}))
    archive = folder / "gtos-mobile.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for split in ("test", "train"):
            for class_name in names:
                packed.writestr(f"gtos-mobile/{split}/{class_name}/", b"")
        for record in _shuffled(records, rng):
            packed.writestr(f"gtos-mobile/{record.split}/{record.name}", record.encoded)
    return Written([archive], records, names)


# ILSVRC 2012

_SYNSETS = [  # in the order of ILSVRC2012_ID, which is not that of the WordNet numbers
    ("n02119789", "kit fox, Vulpes macrotis"),
    ("n02105855", "Shetland sheepdog, Shetland sheep dog, Shetland"),
    ("n03126707", "crane"),
    ("n01440764", "tench, Tinca tinca"),
    ("n02077923", "sea lion"),
    ("n02012849", "crane"),
    ("n02066245", "gray whale, gray whale, devilfish, Eschrichtius gibbosus"),
]
_ODD_FILES = {"n02105855": (2933, "png"), "n02077923": (14822, "cmyk")}  # as in the original


def _synsets(classes: int) -> list[tuple[str, str]]:
    generated = range(len(_SYNSETS) + 1, classes + 1)
    more = [(f"n{9_900_000 - 7 * n:08}", f"generated thing {n}, thing") for n in generated]
    return [*_SYNSETS[:classes], *more]


def _synset_row(
    number: int, synset: tuple[str, str], children: Sequence[int] = (), pictures: int = 0
) -> dict[str, Any]:
    return {
        "ILSVRC2012_ID": _number(number),
        "WNID": synset[0],
        "words": synset[1],
        "gloss": f"what WordNet says of {synset[1].partition(',')[0]}; and more",
        "num_children": _number(len(children)),
        "children": np.array(children, np.uint16).reshape(1, -1),
        "wordnet_height": _number(len(children[:1])),
        "num_train_images": _number(pictures),
    }


def _devkit(synsets: Sequence[tuple[str, str]], records: Sequence[Record]) -> dict[str, bytes]:
    """`meta.mat` and the labels of the validation pictures, both by ILSVRC2012_ID from 1."""
    numbers = sorted(number for number, _ in synsets)
    ids = {number: index for index, (number, _) in enumerate(synsets, start=1)}
    rows = [
        _synset_row(
            ids[synset[0]],
            synset,
            pictures=sum(r.split == "train" and numbers[r.label] == synset[0] for r in records),
        )
        for synset in synsets
    ]
    # What is above the classes comes after them.
    rows.append(_synset_row(1001, ("n00001740", "entity"), [1002, 1003]))
    rows.append(_synset_row(1002, ("n00001930", "physical entity"), range(1, len(synsets))))
    rows.append(_synset_row(1003, ("n00002137", "abstraction, abstract entity"), [len(synsets)]))
    truth = [ids[numbers[record.label]] for record in records if record.split == "test"]
    return {
        "readme.txt": b"ImageNet Large Scale Visual Recognition Challenge 2012\n",
        "data/ILSVRC2012_validation_ground_truth.txt": _lines(truth),
        "data/meta.mat": _mat(synsets=_structs(rows, (-1, 1))),
        "evaluation/demo_eval.m": b"% demo of the usage of the evaluation routines\n",
    }


def _imagenet_train(
    wordnet: str, label: int, class_name: str, count: int, size: tuple[int, int], seed: int
) -> list[Record]:
    """The pictures of one class, by name: `n01440764_10026.JPEG`."""
    rng = np.random.default_rng((seed, label))
    numbers = _gapped(count, rng, 15_000, 900)  # above the odd ones
    odd_number, kind = _ODD_FILES.get(wordnet, (numbers[0] if numbers else 0, "gray"))
    numbers[:1] = [odd_number] * len(numbers[:1])
    records: list[Record] = []
    for index, number in enumerate(numbers):
        pixels = _pixels(label, 1000 * label + index, size, seed)
        encoded = _encode(pixels)
        if index == 0:
            kinds = {"gray": _grey, "cmyk": _cmyk, "png": lambda odd: _encode(odd, ".png")}
            encoded = kinds[kind](pixels)
        name = f"{wordnet}/{wordnet}_{number}.JPEG"
        records.append(Record("train", name, label, class_name, encoded, {}))
    return sorted(records, key=lambda record: record.name)


def write_imagenet(
    folder: Path,
    *,
    classes: int = 6,
    train: int = 3,
    test: int = 2,
    size: tuple[int, int] = (40, 48),
    seed: int = 0,
) -> Written:
    """`ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar` and `ILSVRC2012_devkit_t12.tar.gz`.

    The first is a tar of tars, `n01440764.tar` of `n01440764_10026.JPEG` without a folder; the
    second has `ILSVRC2012_val_00000001.JPEG` and so on, without folders. The devkit has
    `data/meta.mat`, whose N×1 struct array `synsets` gives every ILSVRC2012_ID its WordNet number
    and words, and after the classes also what is above them in WordNet, with IDs from 1001; and
    `data/ILSVRC2012_validation_ground_truth.txt`, an ILSVRC2012_ID a line.

    Labels are places in the sorted WordNet numbers. A class is named by its first word; the two
    that are called "crane" have the WordNet number after it, in brackets. n02105855_2933.JPEG is
    a PNG and n02077923_14822.JPEG has four channels, as in the original; the other classes begin
    with a gray one.
    """
    rng = np.random.default_rng(seed)
    synsets = _synsets(classes)
    first = {number: words.partition(",")[0] for number, words in synsets}
    words = list(first.values())
    numbers = sorted(first)
    names = [
        first[number] if words.count(first[number]) == 1 else f"{first[number]} ({number})"
        for number in numbers
    ]
    by_class = {
        number: _imagenet_train(number, label, names[label], _count(train, label), size, seed)
        for label, number in enumerate(numbers)
    }
    labels = [label for label in range(classes) for _ in range(_count(test, label))]
    validation = [
        Record(
            *("test", f"ILSVRC2012_val_{index:08}.JPEG", label, names[label]),
            _encode(_pixels(label, 1_000_000 + index, size, seed)),
            {},
        )
        for index, label in enumerate(_shuffled(labels, rng), start=1)
    ]
    records = [record for of_class in by_class.values() for record in of_class] + validation
    inner = {}
    for number, of_class in by_class.items():
        members = {record.name.partition("/")[2]: record.encoded for record in of_class}
        packed = _tar(folder / f"{number}.tar", members)
        inner[packed.name] = packed.read_bytes()
        packed.unlink()
    devkit = _devkit(synsets, records)
    archives = [
        _tar(folder / "ILSVRC2012_img_train.tar", inner),
        _tar(
            folder / "ILSVRC2012_img_val.tar",
            {record.name: record.encoded for record in _shuffled(validation, rng)},
        ),
        _tar(
            folder / "ILSVRC2012_devkit_t12.tar.gz",
            {f"ILSVRC2012_devkit_t12/{name}": content for name, content in devkit.items()},
        ),
    ]
    return Written(archives, records, names)

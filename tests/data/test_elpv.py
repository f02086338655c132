"""The ELPV builder, on a generated folder in the package's layout."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_run import QUIET

from fgr_jax.config import Data
from fgr_jax.data.sets import elpv
from fgr_jax.data.source import open_splits
from fgr_jax.errors import UserError

COUNTS = {"mono": (20, 9, 5, 8), "poly": (16, 7, 4, 12)}


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`labels.csv` and `images/`, as in the package `elpv-dataset`."""
    folder = tmp_path_factory.mktemp("elpv")
    (folder / "images").mkdir()
    lines = []
    number = 0
    rng = np.random.default_rng(0)
    for cell_type, counts in COUNTS.items():
        for level, count in enumerate(counts):
            for _ in range(count):
                number += 1
                name = f"images/cell{number:04}.png"
                picture = rng.integers(0, 256, (30, 30), np.uint8)
                cv2.imwrite(str(folder / name), picture)
                lines.append(f"{name}  {level / 3:<18}  {cell_type}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def prepare(source: Path, data_dir: Path, variant: str) -> None:
    elpv.Elpv(
        source=source, config=variant, data_dir=str(data_dir), file_format="array_record"
    ).download_and_prepare()


def test_eight_classes_split_three_to_one_within_each(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path, "eight")
    train, test = open_splits(Data(name="elpv/eight", data_dir=str(tmp_path)), QUIET)
    assert train.class_names[:2] == ["mono, functional", "mono, level 1/3"]
    assert train.class_names[7] == "poly, defective"
    assert train.license == "CC BY-NC-SA 4.0"
    for label, count in enumerate([*COUNTS["mono"], *COUNTS["poly"]]):
        in_test = sum(test[i].label == label for i in range(len(test)))
        in_train = sum(train[i].label == label for i in range(len(train)))
        assert in_test == round(count / 4)
        assert in_train + in_test == count


def test_bytes_labels_and_names_are_those_of_the_files(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path, "eight")
    expected = {cell.file_name: cell for cell in elpv.read_labels(source / "labels.csv")}
    for split in open_splits(Data(name="elpv/eight", data_dir=str(tmp_path)), QUIET):
        for i in range(len(split)):
            example = split[i]
            cell = expected.pop(example.name)
            assert example.encoded_image == (source / example.name).read_bytes()
            assert example.label == elpv.class_of(cell, "eight")
    assert not expected


def test_all_labelings_have_the_same_split(source: Path, tmp_path: Path) -> None:
    names = {}
    for variant in ("eight", "levels", "defective"):
        prepare(source, tmp_path, variant)
        _, test = open_splits(Data(name=f"elpv/{variant}", data_dir=str(tmp_path)), QUIET)
        names[variant] = {test[i].name: test[i].label for i in range(len(test))}
    assert names["eight"].keys() == names["levels"].keys() == names["defective"].keys()
    for name, label in names["eight"].items():
        assert names["levels"][name] == label % 4
        assert names["defective"][name] == (label % 4 > 0)


def test_the_split_does_not_depend_on_the_order_of_the_rows(source: Path) -> None:
    cells = elpv.read_labels(source / "labels.csv")
    _, test = elpv.stratified_split(cells)
    _, shuffled = elpv.stratified_split(cells[::-1])
    assert sorted(test) == sorted(shuffled)


@pytest.mark.parametrize(
    "line", ["images/a.png 0.5", "images/a.png often mono", "images/a.png 0.0 thin", "x 7.0 poly"]
)
def test_a_bad_row_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "labels.csv").write_text(f"images/b.png 1.0 mono\n{line}\n")
    with pytest.raises(UserError, match=f"labels.csv, line 2: '{line}' is not"):
        elpv.read_labels(tmp_path / "labels.csv")


def test_without_the_package_the_message_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"pip install elpv-dataset.*CC BY-NC-SA 4.0"):
        open_splits(Data(name="elpv/eight", data_dir=str(tmp_path)), QUIET)
    assert not list(tmp_path.rglob("*.array_record*"))

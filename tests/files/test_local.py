"""What is said of a file or folder that is not there."""

from pathlib import Path

import pytest

from fgr_jax.files.local import no_such


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("birds", "cars", "planes", "cells", "dogs", ".hidden"):
        (tmp_path / "data" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("data/bird", "{} holds birds, … (5 in all)"),
        ("data/brids/train", "{} holds birds, … (5 in all)"),
        ("data/xyz", "{} holds birds, cars, cells, dogs, … (5 in all)"),
        ("data/birds/train/Wren", "{}/birds is empty"),
    ],
)
@pytest.mark.parametrize("is_absolute", [False, True])
def test_the_way_out_is_what_is_there(
    folder: Path, path: str, there: str, is_absolute: bool
) -> None:
    named = folder.parent / path if is_absolute else Path(path)
    assert no_such("folder", named) == f"no such folder; {there.format(folder)}"


def test_all_names_are_shown_without_a_count(folder: Path) -> None:
    (folder / "cars" / "audi").mkdir()
    assert no_such("file", Path("data/cars/x.csv")) == f"no such file; {folder}/cars holds audi"

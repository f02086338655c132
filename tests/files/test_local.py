"""What is said of a file or folder that is not there."""

from pathlib import Path

import pytest

from fgr_jax.files.local import no_such


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("birds", ".hidden", *map(str, range(10))):
        (tmp_path / "data" / name).mkdir(parents=True)
    for name in ("labels.csv", "cub.py"):
        (tmp_path / "data" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("data/bird", "{} holds birds, … (11 in all)"),
        ("data/brids/train", "{} holds birds, … (11 in all)"),
        ("data/xyz", "{} holds 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … (11 in all)"),
        ("data/train.py", "{} holds cub.py"),
        ("data/birds.txt", "{} holds birds, … (13 in all)"),
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
    (folder / "birds" / "wren").mkdir()
    assert no_such("file", Path("data/birds/x.csv")) == f"no such file; {folder}/birds holds wren"

"""Files of predictions: whatever the names, and whenever the process ends."""

import csv
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.config import Config
from fgr_jax.data.image_files import as_text
from fgr_jax.errors import UserError
from fgr_jax.predict.files import ImageFile, find, in_words
from fgr_jax.predict.output import SUFFIXES, PredictionFile, check
from fgr_jax.predict.overlays import Overlays
from fgr_jax.predict.predictions import Prediction

CROP = np.zeros((4, 4, 3), np.uint8)
CLASSES = ["cat", '=HYPERLINK("x")', "a,b\n'\"", "[red]:cat: 猫"]


def prediction(name: str, *, problem: str = "", maps: Any = None) -> Prediction:
    image = ImageFile(Path(name), None if problem else CROP, problem)
    return Prediction(image, *(([], []) if problem else ([2, 1], [0.75, 0.25])), maps)


def read(path: Path) -> list[dict[str, Any]]:
    """Reads back all formats as the records of JSON."""
    text = path.read_bytes().decode()
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n")[:-1]]
    with path.open(newline="", encoding="utf-8") as file:
        return [_from_csv(row) for row in csv.DictReader(file)]


def _from_csv(row: dict[str, str]) -> dict[str, Any]:
    if row["problem"]:
        return {"file": row["file"], "problem": row["problem"]}
    places = ("1", "2")
    pairs = [(row[f"class_{place}"], float(row[f"probability_{place}"])) for place in places]
    return {
        "file": row["file"],
        "predictions": [{"class": name, "probability": value} for name, value in pairs],
    }


NAMES = (
    st.binary(min_size=1, max_size=40)
    .map(lambda name: os.fsdecode(name.replace(b"\0", b"-")))
    .filter(lambda name: str(Path(name)) == name)
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SUFFIXES),
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=3, max_size=3),
    st.lists(st.tuples(NAMES, st.booleans()), min_size=1, max_size=5),
)
def test_any_names_are_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    suffix: str,
    class_names: list[str],
    files: list[tuple[str, bool]],
) -> None:
    path = tmp_path_factory.getbasetemp() / f"names{suffix}"
    expected = []
    with PredictionFile(path, class_names, 2) as file:
        for name, is_image in files:
            file.add(prediction(name, problem="" if is_image else "is none"))
            top = [{"class": class_names[2], "probability": 0.75}]
            top.append({"class": class_names[1], "probability": 0.25})
            content = {"predictions": top} if is_image else {"problem": "is none"}
            expected.append({"file": as_text(name), **content})
            assert read(path) == expected  # also if the process ends here


@contextmanager
def full_at(size: int) -> Iterator[None]:
    """No file can grow beyond `size` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_full_disk_leaves_what_was_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"predictions{suffix}"
    for size in range(150, 600, 7):
        added: list[str] = []
        with PredictionFile(path, CLASSES, 2) as file, full_at(size):

            def add_all(file: PredictionFile = file, added: list[str] = added) -> None:
                for name in map("{}.jpg".format, range(99)):
                    file.add(prediction(name))
                    added.append(name)

            with pytest.raises(
                UserError, match=r"cannot be written \(.*\); the [0-9]+ predictions"
            ):
                add_all()
            assert [record["file"] for record in read(path)] == added


def test_what_is_not_finite_is_valid_json(tmp_path: Path) -> None:
    image = ImageFile(Path("a.jpg"), CROP)
    with PredictionFile(tmp_path / "a.json", CLASSES, 1) as file:
        file.add(Prediction(image, [0], [float("nan")], None))
    assert read(tmp_path / "a.json")[0]["predictions"] == [{"class": "cat", "probability": None}]


def test_suffixes(tmp_path: Path) -> None:
    check(tmp_path / "A.CSV")
    with pytest.raises(UserError, match=r"must end in \.csv, \.json or \.jsonl"):
        check(tmp_path / "a.txt")


def test_what_predict_leaves_out_is_named_and_the_rest_is_found(tmp_path: Path) -> None:
    jpeg = b"\xff\xd8\xff\xe0"
    (tmp_path / "more").mkdir()
    for name in ("a.jpg", "b.jfif", "no suffix", "more/c.JPE", ".hidden.jpg", "\udcff.png"):
        (tmp_path / name).write_bytes(jpeg)
    for index in range(2000):
        (tmp_path / f"{index:04}.txt").write_bytes(b"text")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone").symlink_to("nowhere")
    found = find([str(tmp_path)])
    names = {path.name for path in found.files}
    assert names == {"a.jpg", "b.jfif", "no suffix", "c.JPE", "\udcff.png"}
    lines = in_words(found.left_out)
    assert len(lines) == 4
    assert f"{tmp_path}/0000.txt, {tmp_path}/0001.txt, {tmp_path}/0002.txt and 1,997 more" in str(
        lines
    )
    assert all(len(line.splitlines()) == 1 for line in lines)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("text")
    with pytest.raises(UserError, match=r"none: holds no image; left out, not images.*none/a.txt"):
        find([str(tmp_path / "none")])


def test_a_folder_that_cannot_be_read_does_not_take_the_rest_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open", "locked"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    scan = os.scandir

    def refuse(path: str | Path) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr("os.scandir", refuse)
    found = find([str(tmp_path / "locked"), str(tmp_path / "open")])
    assert found.files == [tmp_path / "open" / "a.jpg"]
    assert in_words(found.left_out) == [
        f"left out, cannot be read (Permission denied): {tmp_path}/locked"
    ]
    with pytest.raises(UserError, match=r"no image was found; left out, cannot be read"):
        find([str(tmp_path / "locked")])


def overlays(folder: Path, image: Path, class_names: list[str]) -> Overlays:
    config = Config()
    config.data.resize, config.data.crop = 36, 32
    run: Any = type("Run", (), {"config": config, "class_names": class_names})
    return Overlays(folder, [image], run, 8)


@settings(max_examples=30, deadline=None)
@given(
    NAMES.filter(lambda name: "/" not in name)
    | st.sampled_from(["x" * 255, "é" * 127, "\udcff" * 255]),
    st.lists(
        st.sampled_from(["..", "a/b", "a\\b", "a:b", "A:b", "中" * 85, "中" * 84 + "b", "\n"])
        | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300),
        min_size=3,
        max_size=3,
    ),
)
def test_heat_maps_of_any_names(
    tmp_path_factory: pytest.TempPathFactory, name: str, class_names: list[str]
) -> None:
    """Each has a file of its own, also where classes have the same name but for what is replaced."""
    folder = tmp_path_factory.mktemp("overlays")
    (folder / "images").mkdir()
    image = folder / "images" / name
    image.write_bytes(PNG)
    maps = np.ones((2, 4, 4), np.float32)
    made = prediction(str(image), maps=maps)
    assert overlays(folder / "heat", image, class_names).write(made) == ""
    written = [path.name for path in (folder / "heat").iterdir()]
    assert len(written) == 2
    assert all(each.endswith(".jpg") for each in written)


def test_a_heat_map_that_cannot_be_written_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "heat").write_text("a file")
    made = prediction(str(tmp_path / "a.png"), maps=np.ones((2, 4, 4), np.float32))
    write = overlays(tmp_path / "heat", tmp_path / "a.png", CLASSES).write
    assert write(made) == "File exists"
    (tmp_path / "a.png").write_bytes(b"changed")
    assert write(made)
    (tmp_path / "a.png").unlink()
    assert write(made) == "No such file or directory"


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108020000009077"
    "53de0000000c49444154789c63606060000000040001f61738550000000049454e44ae426082"
)


def test_an_empty_path_is_not_the_current_folder() -> None:
    with pytest.raises(
        UserError, match=r"PATH is empty: name images or folders; \. is the current"
    ):
        find(["README.md", ""])


def test_the_output_may_not_be_one_of_the_images(tmp_path: Path) -> None:
    image, link = tmp_path / "image.csv", tmp_path / "link.csv"
    image.write_bytes(b"an image")
    link.symlink_to(image)
    for path in (image, link):
        with pytest.raises(UserError, match="is one of the images to predict; name another file"):
            check(path, [tmp_path / "other.jpg", image])
    check(tmp_path / "new.csv", [image])

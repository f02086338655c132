"""The user's own folder of images: layouts, the split, names, and what can be wrong with it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import QUIET

from fgr_jax.config import Config, Data, Runtime
from fgr_jax.data.identity import DataIdentity
from fgr_jax.data.pipeline import Share, training_batches
from fgr_jax.data.prepare.listing import ImageFile, Listing, check
from fgr_jax.data.sets import catalog, elpv
from fgr_jax.data.sets.folder import is_test
from fgr_jax.data.source import ExampleSource, open_splits
from fgr_jax.errors import UserError
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

ROOT = Path(__file__).parent.parent.parent
CLASSES = ["oak", "<script>elm", "Ulme & Buche", "日本楓"]


def encoded_image(seed: int, color: int = 0) -> bytes:
    """A PNG of 40×48 pixels, another for every seed; its brightness tells its color."""
    pixels = np.random.default_rng(seed).integers(0, 60, (40, 48, 3), np.uint8) + 45 * color
    return cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes()


def write(folder: Path, layout: dict[str, int]) -> Path:
    """Writes the given number of images into each of the folders."""
    seed = 0
    for name, count in layout.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            seed += 1
            color = sorted(path.rpartition("/")[2] for path in layout).index(
                name.rpartition("/")[2]
            )
            (folder / name / f"{index:03}.png").write_bytes(encoded_image(seed, color % 4))
    return folder


def open_folder(folder: Path, data_dir: Path) -> tuple[ExampleSource, ExampleSource]:
    data = Data(name="folder", folder=str(folder), data_dir=str(data_dir))
    return open_splits(data, QUIET)


def contents(source: ExampleSource) -> dict[str, tuple[str, bytes]]:
    examples = [source[index] for index in range(len(source))]
    return {
        example.name: (source.class_names[example.label], example.encoded_image)
        for example in examples
    }


@pytest.mark.parametrize("test_name", ["test", "val", "valid", "Validation"])
def test_two_splits_are_read_as_laid_out(tmp_path: Path, test_name: str) -> None:
    layout = {f"train/{name}": 3 for name in CLASSES} | {
        f"{test_name}/{name}": 2 for name in CLASSES
    }
    folder = write(tmp_path / "trees", layout)
    (folder / "train" / "oak" / "notes.txt").write_text("no image")
    (folder / "train" / ".cache").mkdir()
    train_source, test_source = open_folder(folder, tmp_path / "tfds")
    assert train_source.class_names == sorted(CLASSES)
    for source, split in ((train_source, "train"), (test_source, test_name)):
        expected = {
            path.relative_to(folder / split).as_posix(): (path.parent.name, path.read_bytes())
            for path in (folder / split).rglob("*.png")
        }
        assert contents(source) == expected


def test_one_level_is_split_by_file_name(tmp_path: Path) -> None:
    folder = write(tmp_path / "trees", {"oak": 40, "elm": 30})
    train_source, test_source = open_folder(folder, tmp_path / "tfds")
    assert len(train_source) + len(test_source) == 70
    assert 5 <= len(test_source) <= 25
    for source, in_test in ((train_source, False), (test_source, True)):
        assert all(is_test(name.rpartition("/")[2]) == in_test for name in contents(source))


@given(st.sets(st.text(min_size=1), min_size=200, max_size=300))
def test_a_fifth_of_the_names_are_test_and_one_name_does_not_move_another(names: set[str]) -> None:
    # A sum of 200 or more draws with p = 0.2: five standard deviations either way.
    share = sum(map(is_test, names)) / len(names)
    assert abs(share - 0.2) < 5 * (0.2 * 0.8 / len(names)) ** 0.5


def test_a_run_of_an_older_version_keeps_its_split(tmp_path: Path) -> None:
    """It left classes without test images."""
    folder = write(tmp_path / "trees", {"oak": 20, "elm": 20})
    for path in (folder / "elm").iterdir():
        if is_test(path.name):
            path.unlink()
    train_source, _ = open_folder(folder, tmp_path / "tfds")
    of_hash = sum(not is_test(path.name) for path in folder.rglob("*.png"))
    assert len(train_source) == of_hash - 1
    data = Data(name="folder", folder=str(folder), data_dir=str(tmp_path / "tfds"))
    for examples, expected in ((of_hash, of_hash), (of_hash - 1, of_hash - 1), (9, of_hash - 1)):
        recorded = DataIdentity("folder/trees-0123456789ab/1.0.0", "train", examples)
        assert len(open_splits(data, QUIET, recorded)[0]) == expected


def test_a_changed_folder_is_prepared_anew_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    folder, data_dir = write(tmp_path / "trees", {"oak": 12, "elm": 12}), tmp_path / "tfds"
    first, _ = open_folder(folder, data_dir)
    files = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.array_record*")}
    again, _ = open_folder(folder, data_dir)
    assert again.identity == first.identity
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*.array_record*")} == files
    (folder / "oak" / "new-0.png").write_bytes(encoded_image(99))
    more, _ = open_folder(folder, data_dir)
    assert more.identity != first.identity
    (folder / "oak" / "new-0.png").write_bytes(encoded_image(100))
    changed, _ = open_folder(folder, data_dir)
    assert changed.identity != more.identity


def test_it_trains_evaluates_and_names_its_classes(small: Config, tmp_path: Path) -> None:
    folder = write(tmp_path / "trees", dict.fromkeys(CLASSES, 14))
    small.data.name, small.data.folder = "folder", str(folder)
    outcome = train(small, Workdir.open(tmp_path / "run"), QUIET)
    assert outcome.step == outcome.total_steps
    assert json.loads((tmp_path / "run" / "classes.json").read_text()) == sorted(CLASSES)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["split"] == "test"
    assert last["examples"] == len(open_splits(small.data, QUIET)[1])


@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_and_threads_reads_the_same_batches(
    tmp_path: Path, processes: int
) -> None:
    folder = write(tmp_path / "trees", {"oak": 20, "elm": 25})
    source, _ = open_folder(folder, tmp_path / "tfds")
    data = Data(name="folder", folder=str(folder), resize=36, crop=32)

    def stream(share: Share, runtime: Runtime) -> list[np.ndarray]:
        batches = training_batches(source, data, runtime, share, seed=0, steps=range(9))
        return [batch["image"] for batch in batches]

    whole = stream(Share(8), Runtime(decode_threads=1))
    parts = [
        stream(Share(8, index, processes), Runtime(decode_threads=3)) for index in range(processes)
    ]
    for step, batch in enumerate(whole):
        np.testing.assert_array_equal(batch, np.concatenate([part[step] for part in parts]))
    flags.FLAGS(["test"])  # Grain's worker processes want them parsed
    workers = stream(Share(8), Runtime(decode_threads=1, decode_workers=2))
    np.testing.assert_array_equal(whole, workers)


def test_elpv_as_class_folders_gives_the_examples_of_its_builder(tmp_path: Path) -> None:
    source = tmp_path / "elpv"
    (source / "images").mkdir(parents=True)
    lines = []
    for index in range(64):
        name = f"images/cell{index:04}.png"
        (source / name).write_bytes(encoded_image(index))
        lines.append(f"{name} {index % 4 / 3} {elpv.TYPES[index % 8 // 4]}")
    (source / "labels.csv").write_text("\n".join(lines))
    names = [name.replace("/", " of ") for name in elpv.class_names("eight")]
    folder = tmp_path / "folders"
    for split, cells in zip(
        ("train", "test"),
        elpv.stratified_split(elpv.read_labels(source / "labels.csv")),
        strict=True,
    ):
        for cell in cells:
            target = (
                folder / split / names[elpv.class_of(cell, "eight")] / Path(cell.file_name).name
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((source / cell.file_name).read_bytes())
    elpv.Elpv(
        source=source, config="eight", data_dir=str(tmp_path / "tfds"), file_format="array_record"
    ).download_and_prepare()
    theirs = open_splits(Data(name="elpv/eight", data_dir=str(tmp_path / "tfds")), QUIET)
    ours = open_folder(folder, tmp_path / "tfds")
    for one, other in zip(ours, theirs, strict=True):
        expected = [(name.replace("/", " of "), data) for name, data in contents(other).values()]
        assert sorted(contents(one).values()) == sorted(expected)


def refused(folder: Path, data_dir: Path) -> str:
    """The message for a folder that cannot be prepared; nothing may be left behind."""
    with pytest.raises(UserError) as caught:
        open_folder(folder, data_dir)
    assert not list(data_dir.rglob("*.json")) + list(data_dir.rglob("*.array_record*"))
    assert not list(data_dir.rglob("*ncomplete*"))
    return str(caught.value)


def test_what_the_command_cannot_prepare(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'caltech101': this command prepares cub, .* and folder"):
        catalog.prepare(Data(name="caltech101"), [], tmp_path, QUIET, verify=False)
    with pytest.raises(UserError, match=r"--source=A: a folder of your own is named with"):
        catalog.prepare(Data(name="folder"), [Path("A")], tmp_path, QUIET, verify=False)
    assert not list(tmp_path.iterdir())


def test_layouts_that_are_none(tmp_path: Path) -> None:
    data_dir = tmp_path / "tfds"
    assert "no such folder" in refused(tmp_path / "nowhere", data_dir)
    (tmp_path / "file.csv").touch()
    assert "file.csv: is a file: name the folder" in refused(tmp_path / "file.csv", data_dir)
    with pytest.raises(
        UserError, match=r"name the folder of your images, --config.data.folder=PATH"
    ):
        open_splits(Data(name="folder", data_dir=str(data_dir)), QUIET)
    assert "holds no folders" in refused(write(tmp_path / "empty", {"": 2}), data_dir)
    assert "one is 'oak'" not in refused(write(tmp_path / "one", {"oak": 9}), data_dir)
    assert "at least two classes, and there is 'oak'" in refused(tmp_path / "one", data_dir)
    half = write(tmp_path / "half", {"train/oak": 3, "train/elm": 3})
    assert "it needs both train/ and one of test/, val/" in refused(half, data_dir)
    holes = write(tmp_path / "holes", {"oak": 9, "elm": 0, "ash": 0})
    message = refused(holes, data_dir)
    assert "data set folder: 3 problems" in message  # the third: there is only one class left
    assert f"{holes / 'ash'} is empty: put images into it or remove it" in message
    assert f"{holes / 'elm'} is empty" in message
    extra = write(
        tmp_path / "extra",
        {"train/oak": 2, "train/elm": 2, "test/oak": 2, "test/elm": 0, "test/fir": 1},
    )
    message = refused(extra, data_dir)
    assert f"{extra / 'test' / 'fir'} has no counterpart in {extra / 'train'}" in message
    assert f"{extra / 'test' / 'elm'} is empty" in message


def test_data_sets_may_be_prepared_within_the_folder_of_the_images(tmp_path: Path) -> None:
    folder = write(tmp_path / "trees", {"oak": 9, "elm": 9})
    first = contents(open_folder(folder, folder / "prepared")[0])
    assert contents(open_folder(folder, folder / "prepared")[0]) == first
    assert len(list((folder / "prepared" / "folder").glob("trees-*"))) == 1
    write(folder, {"ash": 9})
    again, _ = open_folder(folder, folder / "prepared")
    assert again.class_names == ["ash", "elm", "oak"]


def test_every_bad_file_is_named(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "trees", {"train/oak": 5, "train/elm": 5, "test/oak": 3, "test/elm": 3}
    )
    cut = folder / "train" / "oak" / "001.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    (folder / "train" / "elm" / "002.png").write_bytes(b"<html>404</html>")
    message = refused(folder, tmp_path / "tfds")
    assert "2 problems; nothing was prepared" in message
    assert "train: oak/001.png is truncated" in message
    assert "train: elm/002.png is not an image" in message
    (folder / "test" / "elm" / "000.png").write_bytes(b"")
    assert "test: elm/000.png is empty" in refused(folder, tmp_path / "tfds")


def test_a_listing_with_repeated_names_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "trees", {"oak": 2, "elm": 1})
    files = [ImageFile(str(folder / name), 0, name) for name in ("oak/000.png", "oak/001.png")]
    other = ImageFile(str(folder / "elm/000.png"), 1, "elm/000.png")
    listing = Listing(["oak", "oak"], {"train": [*files, files[0]], "test": [other]})
    with pytest.raises(UserError) as caught:
        check(listing, "data set trees", None, {})
    assert "the class 'oak' occurs twice in the list of classes" in str(caught.value)
    assert "train: oak/000.png occurs twice in the list" in str(caught.value)
    assert "oak/001.png" not in str(caught.value)
    assert "3 problems" in str(caught.value)  # and the second class has no training images


def test_a_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "trees", {"oak": 9, "elm": 9})
    scandir = os.scandir

    # The tests may run as root, who may read everything.
    def forbidden(path: str) -> object:
        if Path(path).name == "elm":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", forbidden)
    message = refused(folder, tmp_path / "tfds")
    assert f"{folder / 'elm'} cannot be read (Permission denied)" in message


def test_an_image_in_both_splits_is_reported(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "trees", {"train/oak": 5, "train/elm": 5, "test/oak": 3, "test/elm": 3}
    )
    leak = (folder / "train" / "elm" / "004.png").read_bytes()
    (folder / "test" / "oak" / "copy.png").write_bytes(leak)
    command = [sys.executable, "-m", "fgr_jax.prepare", "--config=configs/folder.py"]
    options = [f"--config.data.folder={folder}", f"--config.data.data_dir={tmp_path / 'tfds'}"]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 test image is byte for byte also in the training images" in done.stdout
    assert "test/oak/copy.png is train/elm/004.png" in done.stdout
    assert "10 train, 7 test images, 2 classes" in done.stdout
    assert "next      python -m fgr_jax.main --config=configs/folder.py" in done.stdout

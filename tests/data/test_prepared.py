"""Prepared data sets that are damaged or copied in part, and what is checked as they are prepared."""

import json
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import QUIET, ROOT

from fgr_jax.config import Data, Runtime
from fgr_jax.data import images
from fgr_jax.data.pipeline import Share, training_batches
from fgr_jax.data.prepare import preparation
from fgr_jax.data.prepare.contents import Contents
from fgr_jax.data.prepare.listing import ImageFile, Listing
from fgr_jax.data.prepare.near_duplicates import near_duplicates
from fgr_jax.data.prepare.prepared import (
    NotPreparedError,
    is_prepared,
    open_prepared,
    verify,
)
from fgr_jax.data.sets.folder import Folder
from fgr_jax.data.source import open_splits
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

NAME = "folder/trees"
SMALL = ["dataset_info.json", "features.json", "label.labels.txt", "metadata.json"]
TRAIN, TEST = (f"folder-{split}.array_record-00000-of-00001" for split in ("train", "test"))


def photograph(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 48, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def listing(folder: Path, contents: dict[str, bytes]) -> Listing:
    """Writes files named "train/oak/1.jpg" and lists them."""
    names = sorted({name.split("/")[1] for name in contents})
    splits: dict[str, list[ImageFile]] = {"train": [], "test": []}
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        split, _, rest = name.partition("/")
        splits[split].append(ImageFile(str(path), names.index(rest.split("/")[0]), rest))
    return Listing(names, splits)


FILES = {
    f"{split}/{name}/{index}.jpg": photograph(len(split) * 1000 + label * 100 + index)
    for split, count in (("train", 14), ("test", 6))
    for label, name in enumerate(("elm", "oak"))
    for index in range(count)
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets in which NAME is prepared."""
    folder = tmp_path_factory.mktemp("trees")
    (folder / "tfds").mkdir()
    store(listing(folder, FILES), folder / "tfds")
    return folder / "tfds"


def store(listed: Listing, data_dir: Path, terminal: Terminal = QUIET) -> None:
    variant = tfds.core.BuilderConfig(name="trees", description="Trees.")
    preparation.store(Folder, listed, data_dir, terminal, variant=variant, verify=False)


@pytest.fixture
def data_dir(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tfds"))


def everything(data_dir: Path) -> list[object]:
    """All that is read of the data set, but for its names."""
    sources = open_splits(Data(name=NAME, data_dir=str(data_dir)), QUIET)
    return [
        *(source.class_names for source in sources),
        *(source.identity.content for source in sources),
        *(source[index] for source in sources for index in range(len(source))),
    ]


def refusal(data_dir: Path) -> str:
    with pytest.raises(NotPreparedError) as raised:
        everything(data_dir)
    assert len(str(raised.value).splitlines()) == 1
    assert "delete" not in str(raised.value)
    way_out = "or move that folder away and prepare it again from the folder of your images"
    assert str(raised.value).endswith(way_out)
    assert not re.search(r": ?;", str(raised.value))
    return str(raised.value)


def as_before(data_dir: Path) -> None:
    """Makes the data set one of the first version."""
    folder = data_dir / NAME / "1.0.0"
    (folder / "metadata.json").unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    del info["releaseNotes"]
    (folder / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", [*SMALL, TRAIN, TEST])
def test_each_missing_file_is_named(data_dir: Path, name: str, before: bool) -> None:
    if before:
        as_before(data_dir)
    everything(data_dir)
    (data_dir / NAME / "1.0.0" / name).unlink(missing_ok=True)
    if before and name == "metadata.json":
        everything(data_dir)
    else:
        assert f"{data_dir / NAME / '1.0.0'}: {name} is missing; " in refusal(data_dir)
        assert is_prepared(NAME, data_dir)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", [*SMALL, TRAIN, TEST])
def test_each_file_that_ends_early_is_named(data_dir: Path, name: str, before: bool) -> None:
    if before:
        as_before(data_dir)
    path = data_dir / NAME / "1.0.0" / name
    if not path.exists():
        return
    content = path.read_bytes()
    for end in range(0, len(content), 1 + len(content) // 30):
        path.write_bytes(content[:end])
        assert f"{name} " in refusal(data_dir), end


@pytest.mark.parametrize("name", [*SMALL, TRAIN])
def test_after_a_flipped_bit_nothing_else_is_read(data_dir: Path, name: str) -> None:
    expected = everything(data_dir)
    path = data_dir / NAME / "1.0.0" / name
    content, rng, refused = path.read_bytes(), random.Random(0), list[str]()
    for _ in range(60):
        flipped = bytearray(content)
        flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert everything(data_dir) == expected
        except UserError as error:
            refused.append(str(error))
    assert refused
    assert all(len(message.splitlines()) == 1 for message in refused)


def test_a_damaged_record_ends_the_training_with_its_number(data_dir: Path) -> None:
    path = data_dir / NAME / "1.0.0" / TRAIN
    content = path.read_bytes()
    position = content.index(FILES["train/oak/3.jpg"][-100:])
    path.write_bytes(content[:position] + b"\0" * 50 + content[position + 50 :])
    data = Data(name=NAME, data_dir=str(data_dir), resize=36, crop=32)
    source, _ = open_splits(data, QUIET)
    batches = training_batches(source, data, Runtime(), Share(4), seed=0, steps=range(7))
    with pytest.raises(NotPreparedError, match=r"1\.0\.0: train, record 17 cannot be read: Corr"):
        list(batches)


def test_verifying_decodes_what_is_prepared(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not verify(open_prepared(NAME, data_dir), Data(), QUIET)
    path = data_dir / NAME / "1.0.0" / TEST
    content = path.read_bytes()
    position = content.index(FILES["test/elm/2.jpg"][-100:])
    path.write_bytes(content[:position] + b"\0" * 50 + content[position + 50 :])
    check_readable = images.check_readable

    def without_grays(encoded: bytes, data: Data, *, whole: bool) -> None:
        assert whole
        if encoded == FILES["train/oak/13.jpg"]:
            raise images.ImageError("is gray")
        check_readable(encoded, data, whole=whole)

    monkeypatch.setattr(images, "check_readable", without_grays)
    problems = verify(open_prepared(NAME, data_dir), Data(), QUIET)
    assert problems == ["train: oak/13.jpg is gray", "test: record 2 cannot be read"]


def equal_splits(data_dir: Path, first: int) -> Path:
    """Prepares as many test as training images, and returns the folder of the records."""
    files = {
        f"{split}/{name}/{index}.jpg": photograph(
            first + 1000 * (split == "test") + 100 * label + index
        )
        for split in ("train", "test")
        for label, name in enumerate(("elm", "oak"))
        for index in range(3)
    }
    data_dir.mkdir()
    store(listing(data_dir / "images", files), data_dir)
    return data_dir / NAME / "1.0.0"


@pytest.mark.parametrize("exchange", ["splits", "sets"])
def test_verifying_notices_records_that_were_exchanged(tmp_path: Path, exchange: str) -> None:
    one, other = equal_splits(tmp_path / "one", 1), equal_splits(tmp_path / "other", 5000)
    assert not verify(open_prepared(NAME, tmp_path / "one"), Data(), QUIET)
    if exchange == "splits":
        content = (one / TRAIN).read_bytes()
        (one / TRAIN).write_bytes((one / TEST).read_bytes())
        (one / TEST).write_bytes(content)
    else:
        shutil.copy(other / TRAIN, one / TRAIN)
    (problem,) = verify(open_prepared(NAME, tmp_path / "one"), Data(), QUIET)
    assert re.search(
        r"are not those that were prepared \(content \w{8} instead of \w{8}\)", problem
    )
    done = prepare_command(NAME, tmp_path / "one")
    assert done.returncode == 1
    assert f"1 problem; it was prepared before: move {one} away" in done.stderr
    assert "are not those that were prepared" in done.stderr


@pytest.mark.parametrize("message", ["", "; at 3", "\n", "Corrupt (computed 1); 2; 3"])
def test_a_damage_always_has_a_reason(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(array_record_module, "ArrayRecordReader", broken)
    assert re.search(r" cannot be read: (it is damaged|at 3|Corrupt); ", refusal(data_dir))


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["elm", "oak"], "classes   elm, oak"),
        ([f"class {i:03}" for i in range(200)], "classes   class 000, class 001, "),
        (["x" * 300, "y"], "classes   " + "x" * 300 + ", … (2 in all)"),
    ],
)
def test_the_names_of_the_classes_are_always_printed(names: list[str], line: str) -> None:
    for images_of_each in ({}, {"train": [2] * len(names), "test": [1] * len(names)}):
        first = Contents(names, images_of_each).lines()[0]
        assert first.startswith(line)
        assert first == line or f"… ({len(names)} in all)" in first
        assert len(first) < 130 or len(names[0]) > 100


def prepare_command(name: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *[sys.executable, "-m", "fgr_jax.prepare", "--config=configs/cub.py", "--verify"],
            f"--config.data.name={name}",
            f"--config.data.data_dir={data_dir}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", [NAME, "synthetic/tiny"])
def test_the_command_verifies_every_kind_of_data_set(name: str, data_dir: Path) -> None:
    done = prepare_command(name, data_dir)
    assert done.returncode == 0, done.stderr
    recorded = "content as recorded" if name == NAME else "no content was recorded"
    assert re.search(rf"verified  \d+ images: all can be decoded, {recorded}\n", done.stdout)
    (path,) = (data_dir / name / "1.0.0").glob("*-test.array_record*")
    content = path.read_bytes()
    position = content.rindex(b"\xff\xd9") - 300
    path.write_bytes(content[:position] + b"\0" * 50 + content[position + 50 :])
    done = prepare_command(name, data_dir)
    assert done.returncode == 1
    assert f"data set {name}/1.0.0: 1 problem; it was prepared before: move " in done.stderr
    assert "\n  test: record " in done.stderr
    path.unlink()
    done = prepare_command(name, data_dir)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"{path.name} is missing; " in done.stderr
    again = r"prepare it again from .*: run python -m fgr_jax.prepare --config=configs/cub.py"
    assert re.search(again, done.stderr)


def test_everything_wrong_is_told_in_one_round(tmp_path: Path) -> None:
    wrong = {
        "train/elm/1.jpg": b"",
        "train/oak/2.jpg": FILES["train/oak/2.jpg"][:400],
        "test/oak/0.jpg": b"<html>not found</html>",
    }
    listed = listing(tmp_path, FILES | wrong)
    (tmp_path / "train/oak/5.jpg").unlink()
    train = listed.splits["train"]
    listed = Listing([*listed.class_names, "fir"], {**listed.splits, "train": [*train, train[0]]})
    with pytest.raises(UserError) as raised:
        store(listed, tmp_path)
    heading, *problems = str(raised.value).split("\n  ")
    assert heading.startswith("data set folder: 6 problems; nothing was prepared")
    beginnings = [
        "the class 'fir' has no training images",
        "train: elm/0.jpg occurs twice",
        "train: elm/1.jpg is empty",
        "train: oak/5.jpg is in the list but not in the folder",
        "train: oak/2.jpg is truncated",
        "test: oak/0.jpg is not an image",
    ]
    for beginning in beginnings:
        assert any(problem.startswith(beginning) for problem in problems), (beginning, problems)


def test_an_image_of_two_classes_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copies = {f"train/oak/copy{i}.jpg": FILES[f"train/elm/{i}.jpg"] for i in range(3)}
    copies["test/oak/copy.jpg"] = FILES["train/elm/5.jpg"]
    store(listing(tmp_path, FILES | copies), tmp_path, Terminal())
    printed = capsys.readouterr().out
    told = "1 test image is byte for byte also in the training images: test/oak/copy.jpg is train/elm/5"
    assert told in printed
    assert "4 images are byte for byte also in another class: train/oak/copy0.jpg is " in printed
    assert "train/oak/copy2.jpg is train/elm/2.jpg; " in printed
    assert "test/oak/copy.jpg is train/elm/5.jpg. One of the two labels is wrong" in printed


def test_copies_of_another_size_or_compression_are_found(data_dir: Path, tmp_path: Path) -> None:
    assert not near_duplicates(open_prepared(NAME, data_dir), Data(), QUIET)
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
    large = np.asarray(cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC))
    small = cv2.resize(large, (200, 150), interpolation=cv2.INTER_AREA)
    copies = {
        "train/oak/large.jpg": cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 95])[1],
        "test/elm/small.jpg": cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 60])[1],
    }
    (tmp_path / "more").mkdir()
    listed = listing(tmp_path, FILES | {name: data.tobytes() for name, data in copies.items()})
    store(listed, tmp_path / "more")
    found = near_duplicates(open_prepared(NAME, tmp_path / "more"), Data(), QUIET)
    assert found == [("test/elm/small.jpg", "train/oak/large.jpg")]


TEXTS = st.lists(st.text(), max_size=3)


@given(
    st.lists(st.text(min_size=1), min_size=1, max_size=4),
    st.integers(0, 9),
    TEXTS,
    TEXTS,
    st.dictionaries(st.text(), st.lists(st.text(), min_size=1, max_size=9), max_size=3),
)
def test_metadata_keep_what_was_understood(
    names: list[str],
    count: int,
    unused: list[str],
    notes: list[str],
    left_out: dict[str, list[str]],
) -> None:
    files = [ImageFile("", index % len(names), f"{index}.jpg") for index in range(count)]
    listed = Listing(names, {"train": files, "test": files[:1]}, unused, left_out, notes)
    contents = Contents.of(listed)
    stored = json.loads(json.dumps(contents.to_metadata()))
    assert Contents.from_metadata(stored) == contents
    assert sum(contents.images["train"]) == count
    for reason, them in left_out.items():
        assert contents.left_out[reason].files == len(them)
    for line in (*contents.lines(), json.dumps(contents.in_short())):
        assert isinstance(line, str)
    stored["fgr_jax"]["class_names"][0] += "x"
    with pytest.raises(ValueError, match="its digest differs"):
        Contents.from_metadata(stored)

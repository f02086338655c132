"""Files of features: written, mapped, and damaged in every place."""

import json
import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from fgr_jax.errors import UserError
from fgr_jax.features import store as store_lib
from fgr_jax.features.description import Description
from fgr_jax.features.store import DamagedError, Shard, Store, Writer, try_lock

SHAPES = ((3, 2, 4), (5,))
DTYPES = ("float16", "bfloat16")


def described(**changes: Any) -> Description:
    fields = {
        "examples": 70,
        "views": 3,
        "shapes": SHAPES,
        "dtypes": DTYPES,
        "depends_on": {"weights": "abc"},
        "data_set": "birds/1.0.0",
    }
    return Description(**{**fields, **changes})


def shard_of(about: Description, number: int) -> Shard:
    rng = np.random.default_rng(number)
    count = len(about.shards[number])
    leaves = [
        rng.normal(size=(count, about.views, *shape)).astype(jnp.dtype(kind))
        for shape, kind in zip(about.shapes, about.dtypes, strict=True)
    ]
    return Shard(leaves, rng.integers(0, 200, count, np.int32), rng.random(count) < 0.9)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Four shards: of 20 images, and the last of 10."""
    monkeypatch.setattr("fgr_jax.features.description.SHARD_BYTES", 20 * 3 * (48 + 10))
    about = described()
    written = Store(tmp_path / about.name, about)
    written.folder.mkdir()
    written.write_description()
    with Writer(written) as writer:
        for number in range(len(about.shards)):
            writer.write(number, shard_of(about, number))
    return written


def read_everything(store: Store) -> None:
    store.check_description()
    for number in range(len(store.description.shards)):
        store.check(number)
        store.open(number)


@pytest.mark.parametrize(
    ("shape", "images"), [((1, 1, 1280), 1024), ((14, 14, 1280), 480), ((2, 2, 10), 1024)]
)
def test_a_shard_is_limited_in_bytes_and_in_images(shape: tuple[int, ...], images: int) -> None:
    about = Description(5994, 1, (shape,), ("float16",), {}, "cub")
    sizes = [len(shard) for shard in about.shards]
    assert sizes[:-1] == [images] * (5994 // images)
    assert sum(sizes) == 5994


def test_what_is_read_is_what_was_written(store: Store) -> None:
    assert [len(images) for images in store.description.shards] == [20, 20, 20, 10]
    assert store.missing() == []
    store.check_description()
    for number in range(4):
        store.check(number)
        ours, theirs = store.open(number), shard_of(store.description, number)
        for one, other in zip(ours.leaves, theirs.leaves, strict=True):
            assert one.dtype == other.dtype
            assert isinstance(one, np.memmap)
            assert one.tobytes() == other.tobytes()
        np.testing.assert_array_equal(ours.label, theirs.label)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
    # Anybody can read them.
    plain = np.load(store.folder / "00002-0.npy", mmap_mode="r")
    assert plain.shape == (20, 3, 3, 2, 4)
    assert not list(store.folder.glob("*.unfinished"))


def test_a_flipped_bit_is_found_anywhere(store: Store) -> None:
    rng = np.random.default_rng(0)
    names = sorted(path.name for path in store.folder.iterdir() if path.name != "lock")
    assert len(names) == 4 * 3 + 1
    for name in names:
        path = store.folder / name
        content = path.read_bytes()
        for at in {0, len(content) - 2, *rng.integers(len(content), size=4).tolist()}:
            flipped = bytearray(content)
            flipped[at] ^= 1 << rng.integers(8)
            path.write_bytes(flipped)
            with pytest.raises(DamagedError, match=f"{name} is damaged: remove that f") as raised:
                read_everything(store)
            assert str(raised.value).count("\n") == 0
        path.write_bytes(content)
    for number in range(4):
        store.check(number)


def test_a_file_that_is_cut_off_is_damaged(store: Store) -> None:
    path = store.folder / "00001-1.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedError, match=r"00001-1\.npy is damaged"):
        store.check(1)
    with pytest.raises(DamagedError, match=r"00001-1\.npy is damaged"):
        store.open(1)


@pytest.mark.parametrize("name", ["00002.json", "00002-0.npy", "00002-1.npy"])
def test_a_shard_without_one_of_its_files_is_missing(store: Store, name: str) -> None:
    (store.folder / name).unlink()
    assert store.missing() == [2]
    store.write(2, shard_of(store.description, 2))
    assert store.missing() == []


def test_the_record_comes_last_and_files_are_renamed_when_they_are_on_the_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed between any two operations leaves a shard whole or missing."""
    operations: list[str] = []
    replace, fsync = Path.replace, os.fsync

    def noted(path: Path, target: Path) -> Path:
        operations.append(target.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)

    def synced(file: int) -> None:
        operations.append("fsync")
        fsync(file)

    monkeypatch.setattr(os, "fsync", synced)
    store.write(1, shard_of(store.description, 1))
    names = ("00001-0.npy", "00001-1.npy", "00001.json")
    assert operations == [each for name in names for each in ("fsync", name, "fsync")]


def test_an_error_of_the_disk_is_raised(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    writer = Writer(store)
    with pytest.raises(OSError, match="No space left"), writer:
        writer.write(0, shard_of(store.description, 0))
    assert not list(store.folder.glob("*.unfinished"))


def test_another_folder_under_this_name_is_refused(store: Store) -> None:
    other = Store(store.folder, described(depends_on={"weights": "abd"}))
    with pytest.raises(DamagedError, match="remove that folder, and the same command"):
        other.check_description()


@pytest.mark.parametrize(
    "change",
    [
        {"examples": 71},
        {"views": 4},
        {"shapes": ((3, 2, 4), (6,))},
        {"dtypes": ("float16", "float16")},
        {"depends_on": {"weights": "abd"}},
    ],
)
def test_the_name_tells_features_apart(change: dict[str, Any]) -> None:
    assert described(**change).name != described().name


def test_the_name_of_the_data_set_does_not_count() -> None:
    assert described(data_set="folder/birds-2").name == described().name


def test_a_removed_folder_is_not_locked(store: Store) -> None:
    lock = try_lock(store.folder)
    assert lock is not None
    assert try_lock(store.folder) is None
    with pytest.raises(UserError, match="a process is computing these features"):
        store_lib.remove(store.folder)
    assert store.missing() == []
    os.close(lock)
    mapped = store.open(0)
    store_lib.remove(store.folder)
    assert not store.folder.exists()
    assert try_lock(store.folder) is None
    # Whoever trains on them keeps them.
    theirs = shard_of(store.description, 0)
    assert mapped.leaves[0].tobytes() == theirs.leaves[0].tobytes()


def test_the_description_is_for_readers(store: Store) -> None:
    about = json.loads((store.folder / "description.json").read_text())
    assert about["data_set"] == "birds/1.0.0"
    assert (about["examples"], about["views"], about["shard_images"]) == (70, 3, 20)
    assert str(store.description) == "70 × 3 views of 3×2×4 and 5, 12.2 kB"

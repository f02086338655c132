"""Which prepared data set holds the images of a folder: its content decides, wherever it lies."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import QUIET

from fgr_jax.config import Config, Data
from fgr_jax.data.identity import DataIdentity
from fgr_jax.data.prepare import preparation, variants
from fgr_jax.data.prepare.contents import ContentDigest
from fgr_jax.data.prepare.listing import ImageFile, Listing
from fgr_jax.data.sets.folder import Folder
from fgr_jax.data.source import ExampleSource, open_splits
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.evaluate.evaluated_run import open_for_test
from fgr_jax.inference.saved_run import open_run
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal
from fgr_jax.train.loop import train

FILES = [
    f"{split}/{name}/{index}.bmp"
    for split in ("train", "test")
    for name in ("elm", "oak")
    for index in range(3)
]


def bitmap(value: int) -> bytes:
    """A bitmap of 8×8 pixels: all have the same size."""
    return cv2.imencode(".bmp", np.full((8, 8, 3), value, np.uint8))[1].tobytes()


def write(folder: Path, first: int = 0, *, time: int | None = None) -> Path:
    """Writes twelve images that begin with the gray value `first`, perhaps of a fixed time."""
    for index, name in enumerate(FILES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bitmap(first + index))
        if time is not None:
            os.utime(path, (time, time))
    return folder


def opened(
    folder: Path | str, data_dir: Path, recorded: DataIdentity | None = None
) -> ExampleSource:
    data = Data(name="folder", folder=str(folder), data_dir=str(data_dir))
    return open_splits(data, QUIET, recorded)[0]


def names(data_dir: Path) -> set[str]:
    return {path.name for path in (data_dir / "folder").iterdir()}


def as_before(folder: Path, data_dir: Path, listing: Listing | None = None) -> str:
    """Prepares a folder as the first version did, and returns the name of the variant."""
    listing = listing or Folder.read(folder)
    digest = hashlib.blake2b(digest_size=6)
    for split, files in listing.splits.items():
        for file in files:
            status = os.stat(file.path)
            facts = (split, file.name, file.label, status.st_size, status.st_mtime_ns)
            digest.update(repr(facts).encode())
    variant = variants.new_variant(variants.FolderImages(folder, listing), data_dir)
    variant.name = f"{folder.name}-{digest.hexdigest()}"
    data_dir.mkdir(exist_ok=True)
    preparation.store(Folder, listing, data_dir, QUIET, variant=variant, verify=False)
    prepared = data_dir / "folder" / variant.name / "1.0.0"
    (prepared / "metadata.json").unlink()
    info = json.loads((prepared / "dataset_info.json").read_text())
    del info["releaseNotes"]
    (prepared / "dataset_info.json").write_text(json.dumps(info))
    return str(variant.name)


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets folders be remembered that have just been written."""
    monkeypatch.setattr(variants, "_CLOCK_RESOLUTION", -1e9)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns a function after which no image of a folder may be read."""

    def forbidden(path: str) -> bytes:
        raise AssertionError(f"{path} is read")

    return lambda: monkeypatch.setattr(variants, "_digest_of_file", forbidden)


def moved(folder: Path) -> Path:
    return folder.rename(folder.with_name("elsewhere"))


def copied(folder: Path) -> Path:
    return Path(shutil.copytree(folder, folder.with_name("copy"), copy_function=shutil.copyfile))


def extracted_again(folder: Path) -> Path:
    copy = copied(folder)
    shutil.rmtree(folder)
    return copy.rename(folder)


def linked(folder: Path) -> Path:
    folder.with_name("link").symlink_to(folder)
    return folder.with_name("link")


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("change", [moved, copied, extracted_again, linked])
def test_the_same_images_are_the_same_data_anywhere(
    change: Callable[[Path], Path], before: bool, tmp_path: Path
) -> None:
    data_dir = tmp_path / "tfds"
    folder = write(tmp_path / "trees")
    if before:
        as_before(folder, data_dir)
    first = opened(folder, data_dir)
    assert first.identity.content
    again = opened(change(folder), data_dir)
    assert again.identity == first.identity
    assert len(names(data_dir)) == 1


@pytest.mark.usefixtures("settled")
def test_every_way_to_write_a_path_is_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unread: Callable[[], None]
) -> None:
    write(tmp_path / "trees")
    monkeypatch.chdir(tmp_path)
    first = opened("trees", tmp_path / "tfds")
    unread()
    linked(tmp_path / "trees")
    for way in ("trees/", "./trees", "trees/../trees", tmp_path / "trees", "link", "link/"):
        assert opened(way, tmp_path / "tfds").identity == first.identity


@pytest.mark.parametrize("name", [b"caf\xe9", b"n" * 255, "図".encode() * 85, b"A" + b"-z" * 127])
def test_a_folder_may_have_any_name(tmp_path: Path, name: bytes) -> None:
    folder = write(tmp_path / os.fsdecode(name))
    first = opened(folder, tmp_path / "tfds")
    assert opened(folder, tmp_path / "tfds").identity == first.identity
    (variant,) = names(tmp_path / "tfds")
    assert len(variant) < 255 - len("-99")


def test_a_variant_of_a_long_name_is_found(tmp_path: Path) -> None:
    """Names were shortened from some version on."""
    folder = write(tmp_path / ("n" * 230))
    before = opened(folder, tmp_path / "tfds").identity
    (variant,) = names(tmp_path / "tfds")
    longer = folder.name + variant.lstrip("n")
    (tmp_path / "tfds" / "folder" / variant).rename(tmp_path / "tfds" / "folder" / longer)
    assert opened(folder, tmp_path / "tfds").identity.content == before.content
    assert names(tmp_path / "tfds") == {longer}


def test_a_refused_preparation_leaves_no_folders(tmp_path: Path) -> None:
    folder, data_dir = write(tmp_path / "trees"), tmp_path / "tfds"
    (folder / FILES[0]).write_bytes(b"BM" + bytes(99))
    with pytest.raises(UserError, match=r"nothing was prepared; replace these files"):
        opened(folder, data_dir)
    assert data_dir.is_dir()
    assert not (data_dir / "folder").exists()
    opened(write(tmp_path / "other"), data_dir)
    with pytest.raises(UserError, match=r"nothing was prepared; replace these files"):
        opened(folder, data_dir)
    assert len(names(data_dir)) == 1


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_equal_names_sizes_and_times_are_not_equal_images(
    tmp_path: Path, in_place: bool, before: bool
) -> None:
    data_dir = tmp_path / "tfds"
    first = write(tmp_path / "one" / "trees", 0, time=315532800)
    if before:
        as_before(first, data_dir)
    ours = opened(first, data_dir)
    parent = "one" if in_place else "two"
    theirs = opened(write(tmp_path / parent / "trees", 100, time=315532800), data_dir)
    assert not ours.identity.is_same_data(theirs.identity)
    assert ours.data_set != theirs.data_set
    assert [source[0].encoded_image for source in (ours, theirs)] == [bitmap(0), bitmap(100)]
    third = opened(write(tmp_path / "three" / "trees", 100), data_dir)
    assert third.identity == theirs.identity


@pytest.mark.usefixtures("settled")
def test_a_start_reads_no_image_of_a_folder_that_is_prepared(
    tmp_path: Path, unread: Callable[[], None]
) -> None:
    folder = write(tmp_path / "trees")
    first = opened(folder, tmp_path / "tfds")
    unread()
    assert opened(folder, tmp_path / "tfds").identity == first.identity
    (folder / FILES[0]).write_bytes(bitmap(0))  # the same bytes, but that has to be found out
    with pytest.raises(AssertionError, match="is read"):
        opened(folder, tmp_path / "tfds")


def test_a_folder_is_not_relied_on_before_the_clock_has_ticked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is overwritten at once may keep its time of change."""
    folder = write(tmp_path / "trees")
    opened(folder, tmp_path / "tfds")
    assert not list(tmp_path.rglob("verified_folders.json"))
    monkeypatch.setattr(variants, "_CLOCK_RESOLUTION", -1e9)
    opened(folder, tmp_path / "tfds")
    (remembered,) = tmp_path.rglob("verified_folders.json")
    assert list(json.loads(remembered.read_text())["folders"]) == [os.path.realpath(folder)]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"folders": 3}', b'"x"', b"\xff\xfe"])
@pytest.mark.usefixtures("settled")
def test_what_is_remembered_may_be_damaged(tmp_path: Path, damage: bytes) -> None:
    folder = write(tmp_path / "trees")
    first = opened(folder, tmp_path / "tfds")
    (remembered,) = tmp_path.rglob("verified_folders.json")
    remembered.write_bytes(damage)
    assert opened(folder, tmp_path / "tfds").identity == first.identity
    assert len(names(tmp_path / "tfds")) == 1


@pytest.mark.parametrize("before", [False, True])
def test_a_folder_of_data_sets_that_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    folder, data_dir = write(tmp_path / "trees"), tmp_path / "tfds"
    if before:
        as_before(folder, data_dir)
    else:
        opened(folder, data_dir)

    # The tests may run as root, who may write everywhere.
    def refused(path: Path, *_: object) -> None:
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(variants, "atomic_write", refused)
    monkeypatch.setattr(preparation, "exclusive", refused)
    source = opened(folder, data_dir)
    assert source.identity.content
    assert source.identity == opened(copied(folder), data_dir).identity
    assert not list(tmp_path.rglob("verified_folders.json"))


@pytest.mark.parametrize("before", [False, True])
def test_a_folder_that_is_gone(tmp_path: Path, before: bool) -> None:
    folder, data_dir = write(tmp_path / "trees"), tmp_path / "tfds"
    if before:
        as_before(folder, data_dir)
    identity = opened(folder, data_dir).identity
    recorded = DataIdentity(identity.data_set, identity.split, identity.examples)
    other = opened(write(tmp_path / "others", 100), data_dir).identity
    shutil.rmtree(folder)
    for where in (folder, ""):
        for known in (identity, recorded):
            assert opened(where, data_dir, known).identity == identity
    # Prepared elsewhere, it may have another name there.
    (variant,) = (data_dir / "folder").glob("trees-*")
    moved_set = variant.rename(data_dir / "folder" / "renamed")
    if not before:
        info = moved_set / "1.0.0" / "dataset_info.json"
        info.write_text(info.read_text().replace(variant.name, "renamed"))
        found = opened(folder, data_dir, identity).identity
        assert found.is_same_data(identity)
    assert not other.is_same_data(identity)
    with pytest.raises(UserError, match="no such folder"):
        opened(folder, data_dir)
    with pytest.raises(UserError, match="no such folder"):
        opened(folder, data_dir, DataIdentity("folder/none-123/1.0.0", "train", 6, "1" * 32))


# Names of files, and the length of the name of the folder of each split in them.
OTHERWISE = {
    "litter": [
        f"{name}/{more}{i}.bmp"
        for name in ("elm", "oak")
        for more in ("", "@eaDir/")
        for i in range(8)
    ],
    "splits as classes": [
        f"{split}/{name}/{i}.bmp"
        for split in ("seg_train", "seg_test")
        for name in ("elm", "oak")
        for i in range(4)
    ],
    "a space": [f"{name}/{i}.bmp" for name in ("elm", "oak ") for i in range(8)],
    "refused": [*(f"{name}/{i}.bmp" for name in ("elm", "oak") for i in range(8)), "yew/0.bmp"],
    "below": [f"train/{name}/@eaDir/{i}.bmp" for name in ("elm", "oak") for i in range(8)],
}


@pytest.mark.parametrize("case", OTHERWISE)
def test_an_older_run_keeps_its_images_where_they_are_read_otherwise_today(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data_dir, above = tmp_path / "trees", tmp_path / "tfds", "train/" * (case == "below")
    names = [name.removeprefix(above) for name in OTHERWISE[case]]
    classes = sorted({name.split("/")[0] for name in names})
    splits: dict[str, list[ImageFile]] = {"train": [], "test": []}
    for index, name in enumerate(names):
        path = folder / above / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bitmap(index))
        file = ImageFile(str(path), classes.index(name.split("/")[0]), name)
        splits["test" if index % 4 == 3 else "train"].append(file)
    # Version 0.1.0 did not check the names of the classes.
    stored = Listing([name.strip() for name in classes], splits)
    variant = as_before(folder, data_dir, stored)
    recorded = DataIdentity(f"folder/{variant}/1.0.0", "train", len(splits["train"]))
    data = Data(name="folder", folder=str(folder), data_dir=str(data_dir))
    train, test = open_splits(data, Terminal(), recorded)
    assert train.data_set == recorded.data_set
    assert train.identity.is_same_data(recorded)
    assert len(test) == len(splits["test"])
    (line,) = capsys.readouterr().out.splitlines()
    assert f"{folder}: holds all images of the run, but this version reads it otherwise" in line
    # Again, with what the run records now.
    assert opened(folder, data_dir, train.identity).identity == train.identity
    path = folder / above / names[0]
    path.write_bytes(bitmap(200))
    try:
        assert opened(folder, data_dir, recorded).data_set != recorded.data_set
    except UserError as error:
        assert "folder/" not in str(error)  # noqa: PT017  # it is refused, for a reason of today


IDENTITIES = st.builds(
    DataIdentity,
    st.sampled_from(["cub/1.0.0", "dogs/1.0.0", "folder/a-1/1.0.0", "folder/b-2/1.0.0"]),
    st.sampled_from(["train", "train[:80%]"]),
    st.integers(1, 2),
    st.sampled_from(["", "1" * 32, "2" * 32]),
)


@given(IDENTITIES, IDENTITIES)
def test_two_identities(one: DataIdentity, other: DataIdentity) -> None:
    same = one.is_same_data(other)
    assert same == other.is_same_data(one)
    assert one.is_same_data(one)
    if (one.split, one.examples) != (other.split, other.examples):
        assert not same
    elif one.content and other.content:
        assert same == (one.content == other.content)
    elif not one.data_set.startswith("folder/"):
        assert same == (one.data_set == other.data_set)
    if not same:
        ours, theirs = one.compared(other)
        assert ours != theirs
    assert DataIdentity.from_json(json.loads(json.dumps(one.to_json()))) == one
    old = {name: value for name, value in one.to_json().items() if name != "content"}
    assert DataIdentity.from_json(old | {"classes": 3}).is_same_data(one)


IMAGES = st.lists(
    st.tuples(
        st.sampled_from(["train", "test"]),
        st.text(),
        st.integers(0, 3),
        st.binary(min_size=1, max_size=3),
    ),
    max_size=6,
)


@given(IMAGES, IMAGES)
def test_the_digest_is_of_everything_and_of_the_order_within_a_split(
    one: list[tuple[str, str, int, bytes]], other: list[tuple[str, str, int, bytes]]
) -> None:
    def digest(images: list[tuple[str, str, int, bytes]]) -> str:
        content = ContentDigest()
        for image in images:
            content.add(*image)
        return content.hexdigest()

    by_split = [sorted(images, key=lambda image: image[0]) for images in (one, other)]
    assert (digest(one) == digest(other)) == (by_split[0] == by_split[1])


def test_a_run_is_resumed_and_evaluated_wherever_its_folder_is(
    small: Config, tmp_path: Path
) -> None:
    folder, run = write(tmp_path / "trees"), tmp_path / "run"
    small.data.name, small.data.folder = "folder", str(folder)
    small.data.data_dir = str(tmp_path / "tfds")
    small.duration, small.loss.k = "2 steps", 1
    train(small, Workdir.open(run), QUIET)
    recorded = json.loads((run / "data.json").read_text())
    assert recorded["content"]
    assert recorded["largest"] == {"class": "elm", "train": 3, "test": 3}
    small.data.folder = str(moved(folder)) + "/"
    assert train(small, Workdir.open(run), QUIET).first_step == 2  # it is finished
    mesh = data_mesh()

    def notices(**fields: str) -> list[str]:
        here = {f"data.{name}": value for name, value in fields.items()}
        return open_for_test(open_run(Workdir.open(run), here), mesh, QUIET).notices

    # As the first version left it, and the folder is gone from where the run had it.
    del recorded["content"]
    (run / "data.json").write_text(json.dumps(recorded))
    assert not notices()
    other = write(tmp_path / "trees", 100)
    small.data.folder = str(other)
    (notice,) = notices(folder=str(other))
    assert re.match("the data set is no longer the one that the run was trained on", notice)
    with pytest.raises(UserError, match=r"Differing: data set \(there .*, now "):
        train(small, Workdir.open(run), QUIET)
    with pytest.raises(UserError, match=r"--config.loss.k=3: the run in .* has its own value"):
        open_run(Workdir.open(run), {"loss.k": 3})

"""The splits that a run uses: by hashes of names, with groups, in folds, and what is told of them."""

import csv
import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_run import QUIET

from fgr_jax.config import Config, Data, validate
from fgr_jax.data.prepare import index, prepared
from fgr_jax.data.prepare.contents import Contents
from fgr_jax.data.prepare.hash_split import Images, sides
from fgr_jax.data.prepare.near_duplicates import near_duplicates
from fgr_jax.data.prepare.used_splits import Used, with_splits
from fgr_jax.data.sets import catalog
from fgr_jax.data.source import ExampleSource, open_sources, open_splits
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

NAMES = ["ash", "elm", "oak"]


def image(seed: int, side: int = 24) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Given splits, and three plants for each class with four images in each split."""
    seed = 0
    for split, plants in (("train", 3), ("test", 2)):
        for name in NAMES:
            for plant in range(plants):
                for number in range(4 if split == "train" else 2):
                    path = tmp_path / "trees" / split / name / f"{name}{plant}" / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(image(seed := seed + 1))
    return tmp_path / "trees"


def hashed(folder: Path, **fields: Any) -> Data:
    data = Data(name="folder", folder=str(folder), data_dir=str(folder.parent / "tfds"))
    return dataclasses.replace(data, split="hash", **fields)


def names(source: ExampleSource) -> list[str]:
    return [source[i].name for i in range(len(source))]


def content(source: ExampleSource) -> dict[bytes, str]:
    examples = [source[i] for i in range(len(source))]
    return {each.encoded_image: source.class_names[each.label] for each in examples}


def test_all_images_are_divided_by_their_names(folder: Path) -> None:
    sources = open_sources(hashed(folder, test_share=0.3, validation_share=0.2), QUIET)
    used = {"train": sources.train, "validation": sources.validation, "test": sources.test}
    files = sorted(folder.rglob("*.png"), key=lambda path: path.parts[-4] != "train")
    every = Images(
        [path.relative_to(folder).as_posix().split("/", 1)[1] for path in files],
        [NAMES.index(path.parts[-3]) for path in files],
        [""] * len(files),
        NAMES,
    )
    side = sides(every, test_share=0.3, validation_share=0.2)
    for number, (split, source) in enumerate(used.items()):
        assert source is not None
        chosen = [path for path, of in zip(files, side, strict=True) if of == number]
        assert content(source) == {path.read_bytes(): path.parts[-3] for path in chosen}
        assert source.identity.split == f"{split} by hash (test 0.3, validation 0.2)"
        labels = [source[i].label for i in range(len(source))]
        assert set(labels) == {0, 1, 2}
        assert source.labels(QUIET).tolist() == labels
    counts = sources.train.contents.images
    assert {split: sum(numbers) for split, numbers in counts.items()} == {
        split: len(source) for split, source in used.items() if source
    }
    other = open_sources(hashed(folder, test_share=0.31, validation_share=0.2), QUIET)
    assert not other.train.identity.is_same_data(sources.train.identity)


def test_images_that_are_added_move_no_others(folder: Path) -> None:
    data = hashed(folder, test_share=0.3)
    before = [set(names(source)) for source in open_splits(data, QUIET)]
    for number in range(30):
        (folder / "train" / "oak" / f"new {number}.png").write_bytes(image(1000 + number))
    (folder / "train" / "yew").mkdir()
    (folder / "test" / "yew").mkdir()
    for split in ("train", "test"):
        (folder / split / "yew" / f"{split}.png").write_bytes(image(split == "train"))
    after = [set(names(source)) for source in open_splits(data, QUIET)]
    for one, other in zip(before, after, strict=True):
        assert one <= other
    assert sum(map(len, after)) == sum(map(len, before)) + 32
    assert sum("yew" in name for name in after[1]) == 1


@pytest.mark.parametrize("fold", ["", "1/3", "2/3", "3/3"])
def test_a_level_of_folders_stays_whole(folder: Path, fold: str) -> None:
    data = hashed(folder, group=1, fold=fold)
    train, test = open_splits(data, QUIET)
    plants = [{name.split("/")[1] for name in names(source)} for source in (train, test)]
    assert not plants[0] & plants[1]
    assert {example.label for example in map(test.__getitem__, range(len(test)))} <= {0, 1, 2}
    if not fold:
        # ash0 of train/ and of test/ is one plant.
        assert plants[0] | plants[1] == {f"{name}{plant}" for name in NAMES for plant in range(3)}
        assert train.identity.split == "train by hash (test 0.2, groups of level 1)"
    else:
        whole = names(open_splits(hashed(folder, group=1), QUIET)[0])
        assert sorted(names(train) + names(test)) == sorted(whole)
        assert test.identity.split == f"train by hash (test 0.2, groups of level 1), fold {fold}"
    with pytest.raises(
        UserError, match=r"data\.group=2: no image lies in 2 levels of folders below"
    ):
        open_splits(hashed(folder, group=2), QUIET)


def test_folds_respect_the_groups_of_a_table_and_given_splits(folder: Path) -> None:
    files = sorted(folder.rglob("*.png"))
    rows = [
        (path.relative_to(folder), path.parts[-3], path.parts[-4], path.parts[-2] + path.parts[-4])
        for path in files
    ]
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split", "group"), *rows])
    data = Data(
        name="folder", table=str(folder / "labels.csv"), data_dir=str(folder.parent / "tfds")
    )
    whole, _ = open_splits(data, QUIET)
    folds = []
    for number in (1, 2, 3):
        data.fold = f"{number}/3"
        train, test = open_splits(data, QUIET)
        assert sorted(names(train) + names(test)) == sorted(names(whole))
        plants = [{name.split("/")[2] for name in names(source)} for source in (train, test)]
        assert not plants[0] & plants[1]
        assert len(plants[1]) == 3  # one of each class
        assert test.identity.split == f"train, fold {number}/3 of groups"
        folds += names(test)
    assert sorted(folds) == sorted(names(whole))
    data.train_split = "train[:50%]"
    with pytest.raises(UserError, match=r"train\[:50%\].* it must be one of train, test"):
        open_splits(data, QUIET)


def test_names_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = hashed(folder)
    expected = [names(source) for source in open_splits(data, QUIET)]
    (path,) = (folder.parent / "tfds").rglob("index.parquet")
    reads = []
    map_records = prepared.map_records

    def counting(*arguments: Any) -> Any:
        reads.append(1)
        return map_records(*arguments)

    monkeypatch.setattr(index, "map_records", counting)
    assert [names(source) for source in open_splits(data, QUIET)] == expected
    assert not reads
    whole = path.read_bytes()
    for damaged in (whole[:-50], b""):
        path.write_bytes(damaged)
        assert [names(source) for source in open_splits(data, QUIET)] == expected
    assert len(reads) == 2
    assert path.read_bytes() == whole
    for number, file in enumerate(sorted((folder / "train" / "oak").rglob("*.png"))):
        file.rename(folder / "train" / "oak" / f"{number}.png")
    expected = [names(source) for source in open_splits(data, QUIET)]
    (other,) = {*(folder.parent / "tfds").rglob("index.parquet")} - {path}
    other.write_bytes(whole)  # of as many images, but of another content
    assert [names(source) for source in open_splits(data, QUIET)] == expected


def test_copies_across_the_used_split_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = hashed(folder, test_share=0.5)
    train, test = open_splits(plain, QUIET)
    one, other = (folder / "train" / sorted(names(source))[0] for source in (train, test))
    one, other = (
        path if path.exists() else folder / "test" / path.relative_to(folder / "train")
        for path in (one, other)
    )
    # Of one name, and so on one side, whichever split they are in.
    copied = (folder / "train" / "elm" / "elm0" / "1.png").read_bytes()
    (folder / "test" / "elm" / "elm0" / "1.png").write_bytes(copied)
    open_splits(plain, Terminal())
    assert "byte for byte" not in capsys.readouterr().out
    other.write_bytes(one.read_bytes())
    open_splits(plain, Terminal())
    printed = " ".join(capsys.readouterr().out.split())
    assert "1 test image is byte for byte also in the training images: test/" in printed
    assert printed.count("byte for byte also in the training images") == 1
    # A copy at another size.
    pixels = cv2.imdecode(np.frombuffer(one.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    larger = cv2.resize(pixels, (96, 96), interpolation=cv2.INTER_NEAREST)
    other.write_bytes(cv2.imencode(".png", larger)[1].tobytes())
    found = catalog.prepare(plain, [], Path(plain.data_dir), QUIET, verify=False)
    (pair,) = near_duplicates(found, plain, QUIET)
    assert [path.split("/")[0] for path in pair] == ["test", "train"]
    assert [path.rpartition("/")[2] for path in pair] == [other.name, one.name]


def test_a_data_set_without_names_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Data(name="synthetic/tiny", data_dir=str(data_dir), split="hash")
    train, test = open_splits(data, QUIET)
    assert not set(names(train)) & set(names(test))
    monkeypatch.setattr(prepared, "_FILE_NAMES", ())
    with pytest.raises(UserError, match="does not keep the names of its files, by which"):
        open_splits(data, QUIET)


def test_classes_without_images_on_one_side_are_noted() -> None:
    listed = index.Index(list("abc"), [0, 1, 2], [""] * 3, [b""] * 3)
    rows = {"train": [0, 2], "test": [1, 2]}
    used = {
        split: Used("train", np.array(each), split, "split", listed) for split, each in rows.items()
    }
    found = with_splits(Contents(NAMES, notes=["first"]), used)
    assert found.images == {"train": [1, 0, 1], "test": [0, 1, 1]}
    assert found.notes == [
        "first",
        "1 class without training images: elm",
        "1 class without test images: ash",
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"test_share": 0.3}, "data.test_share=0.3: must be 0.2 without data.split=\"hash\""),
        ({"validation_share": 0.1}, "must be 0.0 without data.split"),
        ({"group": 1}, "data.group=1: must be 0 without data.split"),
        ({"split": "hash", "test_split": "validation"}, "must be 'test' with data.split=\"hash\""),
        ({"split": "hash", "validation_split": "test"}, "data.validation_share takes its place"),
        ({"split": "hash", "validation_share": 0.8}, "must be less than 1 together with"),
        ({"split": "hash", "test_share": 0.0}, "data.test_share=0.0: must be above 0 without"),
        ({"split": "hash", "group": 1, "name": "cub"}, "must be 0 without a folder"),
        ({"split": "hash", "group": 1, "table": "x"}, "must be 0 with a table, which has a column"),
        ({"split": "random"}, "data.split='random': must be one of given, hash"),
    ],
)  # fmt: skip
def test_fields_that_contradict_each_other(fields: dict[str, Any], message: str) -> None:
    config = Config(data=dataclasses.replace(Data(name="folder"), **fields))
    with pytest.raises(UserError) as caught:
        validate(config)
    assert message in str(caught.value)

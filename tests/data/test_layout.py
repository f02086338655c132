"""What the names of folders and their content say: classes, splits, or neither."""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.data import image_files
from fgr_jax.data.prepare.listing import LayoutNotFoundError, Listing, check
from fgr_jax.data.sets.folder import BESIDE, is_test, read_class_folders, split_by_name
from fgr_jax.errors import UserError, shown

TRAIN = ["train", "training", "Train", "TRAIN", "trainval"]
# In the order of their precedence.
TEST = ["test", "Testing", "EVAL", "evaluation", "val", "Valid", "validation", "dev"]
PATTERNS = [
    *("{}", "{}_set", "seg_{}", "images_{}", "{} images", "{}2017", "{}-data", "my {}", "01_{}"),
    *("{}set", "{}images", "data-{}Set"),
    *("{}.v2", "birds-{}-300x300"),
]


def can_be_a_name(name: str) -> bool:
    """Whether it is the name of a folder that is not left out, on any file system."""
    return not (
        {"/", "\0"} & set(name)
        or name.startswith(".")
        or name.lower() in image_files._LITTER
        or len(name.encode()) > 100
    )


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
names = st.one_of(
    names, st.sampled_from(["__background__", "_negative", "train", "10", "9", "cat"])
)
names = names.filter(can_be_a_name)
class_names = st.sets(names, min_size=2, max_size=4)


def is_plain(name: str) -> bool:
    """Whether the name is "train", or has nothing like the name of a split in it."""
    return name == "train" or not re.search("tr[an]|test|val|dev|holdout", name.lower())


litter = st.sampled_from(["", ".ipynb_checkpoints", "@eaDir", "__MACOSX", ".DS_Store"])


@contextlib.contextmanager
def tree(files: list[str]) -> Iterator[Path]:
    """Yields a folder with such files."""
    with tempfile.TemporaryDirectory() as name:
        for file in files:
            path = Path(name) / "root" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.encode("utf-8", "surrogateescape"))
        yield Path(name) / "root"


def read(files: list[str]) -> Listing:
    with tree(files) as root:
        return read_class_folders(root)


def flat(*folders: str) -> list[str]:
    return [f"{folder}/{index}.png" for folder in folders for index in range(3)]


def labeled(listing: Listing, split: str) -> dict[str, str]:
    return {file.name: listing.class_names[file.label] for file in listing.splits[split]}


@settings(deadline=None)
@given(
    classes=class_names,
    train=st.sampled_from(TRAIN),
    tests=st.sets(st.sampled_from(TEST), min_size=1, max_size=3),
    pattern=st.sampled_from(PATTERNS),
    above=st.sampled_from(["", "archive/", "a/b/"]),
    repeated=st.booleans(),
    litter=litter,
    others=st.sets(st.sampled_from(["seg_pred", "annotations", "unlabeled"]), max_size=1),
)
def test_two_folders_with_the_same_classes_are_splits(
    classes: set[str],
    train: str,
    tests: set[str],
    pattern: str,
    above: str,
    repeated: bool,
    litter: str,
    others: set[str],
) -> None:
    def inside(split: str) -> str:
        name = pattern.format(split)
        return f"{above}{name}/{name}/" if repeated else f"{above}{name}/"

    files = [f"{inside(split)}{name}/{split}.png" for split in {train, *tests} for name in classes]
    files += [f"{above}{other}/{name}/x.png" for other in others for name in classes]
    if litter:
        files += [f"{inside(train)}{name}/{litter}/copy.png" for name in classes]
        files += [f"{above}{litter}/x.png", f"{inside(train)}{litter}/x.png"]
    listing = read(files)
    test = min(tests, key=TEST.index)
    assert listing.class_names == sorted(classes)
    for split, word in (("train", train), ("test", test)):
        assert labeled(listing, split) == {f"{name}/{word}.png": name for name in classes}
    expected = {f"{above}{pattern.format(split)}" for split in tests - {test}}
    assert set(listing.unused) == expected | {above + other for other in others}
    assert sum(map(len, listing.left_out.values())) == (len(classes) + 2 if litter else 0)
    assert not listing.problems
    assert listing.notes == ([f"the splits are in {above.rstrip('/')}/"] if above else [])


@settings(deadline=None)
@given(
    classes=st.sets(names.filter(is_plain), min_size=2, max_size=4),
    depth=st.sampled_from(["", "2020/", "a/b/"]),
    litter=litter,
)
def test_other_folders_are_classes(classes: set[str], depth: str, litter: str) -> None:
    flat = {"train"} & classes if len(classes) > 1 else set()
    files = [f"{name}/{'' if flat else depth}{index}.png" for name in classes for index in range(9)]
    if litter:
        files += [f"{name}/{litter}/0.png" for name in classes]
    listing = read(files)
    assert listing.class_names == sorted(classes)
    both = labeled(listing, "train") | labeled(listing, "test")
    expected = {file: file.partition("/")[0] for file in files if not litter or litter not in file}
    assert both == expected
    assert not labeled(listing, "train").keys() & labeled(listing, "test").keys()
    assert not listing.problems
    assert sum(map(len, listing.left_out.values())) == (len(classes) if litter else 0)
    told = "train/ is a class, not a split: it holds images itself, like the others"
    assert listing.notes == ([told] if flat else [])


@pytest.mark.parametrize("name", ["train station", "crash_test_dummy", "Bullet Train", "test tube"])
def test_a_name_with_other_words_is_a_class(name: str) -> None:
    listing = read([f"{of}/{deep}{i}.png" for of in ("bus", name) for deep in "ab/" for i in "12"])
    assert listing.class_names == sorted(["bus", name])
    assert listing.notes == [f"{name}/ is a class, not a split"]


def test_names_with_other_words_are_no_pair() -> None:
    years = ["2019", "2020"]
    files = flat(*(f"{of}/{y}" for of in ("bus", "train station", "test track") for y in years))
    assert_ambiguous(files)  # not refused as splits
    files = flat(*(f"{of}/{name}" for of in ("train_flipped", "test") for name in ("oak", "elm")))
    assert read(files).class_names == ["elm", "oak"]


@pytest.mark.parametrize(
    ("train", "test", "unused"),
    [
        ("BirdsTrain", "BirdsTest", []),
        ("train_val", "test", []),
        ("train", "test", ["train_flipped", "val"]),
        ("train2017", "val2017", ["train2014"]),
        ("1_train", "3_test", ["2_val"]),
        ("trainingData", "evalImages", ["devset"]),
    ],
)
def test_the_pair_that_is_used(train: str, test: str, unused: list[str]) -> None:
    names = [train, test, *unused]
    listing = read(flat(*(f"{split}/{of}" for split in names for of in ("oak", "elm"))))
    assert {Path(file.path).parts[-3] for file in listing.splits["train"]} == {train}
    assert {Path(file.path).parts[-3] for file in listing.splits["test"]} == {test}
    assert listing.unused == unused


def test_a_name_may_say_that_it_is_a_class() -> None:
    assert read(flat("train class", "TestClass")).class_names == ["TestClass", "train class"]
    nested = flat(*(f"{of}/{y}" for of in ("train_class", "test_class") for y in ("2019", "2020")))
    assert read(nested).class_names == ["test_class", "train_class"]


DOUBTFUL = {
    "one split": (flat("train/oak", "train/elm"), "it needs both train/ and one of test/, val/"),
    "the other": (flat("val/oak", "val/elm"), "it needs both train/ and one of test/, val/"),
    "no classes": (
        flat("train", "test"),
        "holds train/ and test/: to be splits, they need class folders in common",
    ),
    "other classes": (
        flat("train/oak", "train/elm", "test/fir", "test/ash"),
        "class folders in common",
    ),
    "unlabeled": (
        flat("train/oak", "train/elm", "test"),
        "and test/: to be splits, they need class folders",
    ),
    "images to predict beside classes": (
        flat("oak", "elm", "test"),
        "test/ beside 2 other folders: it needs both train/ and one of test/, val/ and so on, with the "
        "same folder for each class, or a folder for each class and no splits. If test/ is a class, "
        "rename it, for example to 'test class'",
    ),
    "a station and a tube": (
        flat(*(f"{of}/{year}" for of in ("train station", "test tube") for year in (2019, 2020))),
        "test tube/: to be splits, they need class folders in common, and names that differ in nothing",
    ),
    "a class or a split": (flat("bus", "car", "train/oak", "train/elm"), "to 'train class'"),
    "classes with the same folders": (
        flat(*(f"{of}/{year}" for of in ("bus", "car", "train", "test") for year in (2019, 2020))),
        "train/ and test/ could be splits, or classes like bus/, which holds the same folders",
    ),
    "two data sets": (
        flat(*(f"{of}_{split}/{c}" for of in "ab" for split in ("train", "test") for c in "xy")),
        "holds a_test/, a_train/, b_test/, b_train/: it is not clear which are for training",
    ),
    "the same split twice": (
        flat(*(f"{split}/{c}" for split in ("train", "Train", "test") for c in "xy")),
        "holds Train/, test/, train/: it is not clear which are for training and testing",
    ),
    "splits in classes": (
        flat(*(f"{of}/{split}" for of in ("oak", "elm") for split in ("train", "val"))),
        "elm holds train/ and val/: if it is a class, put the splits above it, as in train/elm/",
    ),
    "other splits in classes": (
        flat("a/seg_train/oak", "a/seg_train/elm", "a/seg_test/oak", "a/seg_test/elm", "b"),
        "a holds seg_train/ and seg_test/: if it is a class, put the splits above it, as in "
        "seg_train/a/; if it holds all the images, name it",
    ),
    "classes and splits in one name": (
        flat("cat_train", "cat_test", "dog_train", "dog_test"),
        "dog_test/: to be splits, they need class folders in common",
    ),
    "one folder too high": (
        flat("archive/cat", "archive/dog"),
        "root/archive are the classes, name",
    ),
    "two folders too high": (
        flat("a/b/cat", "a/b/dog"),
        "root/a/b are the classes, name that folder",
    ),
    "no folders": (["0.png"], "holds no folders, only images: put the images of each class in a"),
    "nothing": (
        [".hidden/0.png"],
        "holds no folders but .hidden (hidden, as their names begin with a dot): put the images of",
    ),
    "an archive": (["photos.zip"], "holds photos.zip and no folders: unpack it"),
    "a run": (["config.json", "checkpoints/1/x", "evaluation/0.png"], "is the folder of a run"),
}


@pytest.mark.parametrize("case", DOUBTFUL)
def test_what_has_no_meaning_or_several_is_refused(case: str) -> None:
    files, words = DOUBTFUL[case]
    with pytest.raises(UserError) as caught:
        read(files)
    assert words in str(caught.value)
    assert isinstance(caught.value, LayoutNotFoundError) or case == "a run"


def test_a_split_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def forbidden(path: Path) -> object:
        if path.name == "test":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    with tree(flat("train/oak", "train/elm", "test/oak", "test/elm")) as root:
        monkeypatch.setattr("os.scandir", forbidden)
        with pytest.raises(UserError, match=r"root/test: cannot be read \(Permission denied\)"):
            read_class_folders(root)
        monkeypatch.undo()


def assert_ambiguous(files: list[str]) -> str:
    with pytest.raises(
        LayoutNotFoundError, match="it is not clear which are the classes"
    ) as caught:
        read(files)
    return str(caught.value)


@settings(deadline=None)
@given(
    outer=st.sets(names.filter(is_plain), min_size=2, max_size=4),
    inner=st.sets(names.filter(is_plain), min_size=2, max_size=4),
    above=st.sampled_from(["", "train/"]),
)
def test_folders_that_all_hold_the_same_folders_are_refused(
    outer: set[str], inner: set[str], above: str
) -> None:
    """They may be splits of which the names say nothing, or classes."""
    outer, inner = (
        {name for name in group if name != "train"} | {"a", "b"} for group in (outer, inner)
    )
    files = [f"{above}{of}/{within}/{i}.png" for of in outer for within in inner for i in "12"]
    if above:
        files += [f"test/{of}/{within}/3.png" for of in outer for within in inner]
    with tree(files) as root:
        with pytest.raises(LayoutNotFoundError) as caught:
            read_class_folders(root)
        told = str(caught.value)
        outside, inside = (shown(", ".join(sorted(group))) for group in (outer, inner))
        assert f": {outside} have the folders {inside} in common" in told
        assert ("move the others" if above else "put the images for training into train/") in told
        # What an earlier run was trained on is read again.
        listing = read_class_folders(root, lenient=True)
        assert listing.class_names == sorted(outer)
        assert any("are read as part of them" in note for note in listing.notes)


@settings(deadline=None, max_examples=20)
@given(
    outer=st.sampled_from(
        [("fold_1", "fold_2"), ("训练集", "测试集"), ("learn", "check"), ("a", "b")]
    ),
    above=st.sampled_from(["", "train/"]),
    wrapper=st.sampled_from(["", "images/", "x/y/"]),
    spelled=st.sampled_from([str, str.upper, lambda name: name.replace("oak", "o a k")]),
    more=st.sets(st.sampled_from(["stray/../0.png", "0.png", "one/oak/0.png", "flat/0.png"])),
    only=st.sets(st.sampled_from(["fir", "ash", "yew"]), max_size=2),
)
def test_folders_that_share_folders_are_refused(
    outer: tuple[str, str],
    above: str,
    wrapper: str,
    spelled: Callable[[str], str],
    more: set[str],
    only: set[str],
) -> None:
    """Stray images, folders that lack classes or have others, and flat folders tell nothing."""
    one, other = outer
    files = flat(*(f"{one}/{wrapper}{name}" for name in ("oak", "elm", *only)))
    files += flat(*(f"{other}/{wrapper}{spelled(name)}" for name in ("oak", "elm")))
    files += [file.replace("one/", f"one/{wrapper}") for file in more if "/" in file]
    files += [f"{one}/0.png"] * ("0.png" in more)
    parts = [f"{split}/{file}" for split in ("train", "test") for file in files] if above else files
    told = assert_ambiguous(parts)
    assert f": {', '.join(sorted(outer))} have the folders " in told
    common = {f"{wrapper}{name}" for name in ("oak", "elm", spelled("oak"), spelled("elm"))}
    assert f" have the folders {', '.join(sorted(common))} in common" in told
    with tree(parts) as root:
        assert set(outer) <= set(read_class_folders(root, lenient=True).class_names)


def test_folders_in_classes_that_are_no_classes_are_told() -> None:
    told = "the classes are {}; the folders inside them ({}) are read as part of them"
    pairs = [("paris", "rome"), ("rome", "oslo"), ("oslo", "paris")]
    ring = flat(*(f"{of}/{city}" for of, pair in zip("abc", pairs, strict=True) for city in pair))
    assert read(ring).notes == [told.format("a, b, c", "oslo, paris, rome")]
    some = flat(*(f"{of}/{inner}" for of in "ab" for inner in ("leaf", "bark")))
    beside = [f"{of}/{i}.png" for of in "ab" for i in range(6)]
    assert read([*some, *beside]).notes == [told.format("a, b", "bark, leaf")]
    others = flat("c", "d", "e")
    assert_ambiguous([*some, *others])  # 12 of 21 images, though of 2 of 5 folders
    assert_ambiguous([*some, *flat("c", "d"), *(f"c/{i}.jpg" for i in range(9))])
    assert read([*some, *others, *flat("f")]).notes == [
        told.format("a, b, c, d, e, f", "bark, leaf")
    ]


@pytest.mark.parametrize(
    ("split", "parts", "other"),
    [
        ("train", ["train-001", "train-002"], "test-001"),
        ("train", ["train", "train (1)"], "test"),
        ("train", ["trainA", "trainB"], "testA"),
        ("test", ["test_part_1", "test_part_2"], "train_part_1"),
    ],
)
def test_parts_of_one_split_are_refused(split: str, parts: list[str], other: str) -> None:
    files = flat(*(f"{of}/{name}" for of in (*parts, other) for name in ("oak", "elm")))
    told = (
        rf"holds {re.escape(parts[0])}/ and {re.escape(parts[1])}/, which may be parts of one split"
    )
    with pytest.raises(LayoutNotFoundError, match=told):
        read(files)
    with tree(files) as root:  # as runs were trained before
        listing = read_class_folders(root, lenient=True)
    assert {Path(file.path).parts[-3] for file in listing.splits[split]} == {parts[0]}
    assert listing.unused == parts[1:]


def test_folders_in_classes_are_told() -> None:
    told = "the classes are {}; the folders inside them ({}) are read as part of them"
    sets = flat("a/oak", "a/elm", "b/ash")
    assert read(sets).notes == [told.format("a, b", "ash, elm, oak")]
    parts = [f"{split}/{file}" for split in ("train", "test") for file in sets]
    assert read(parts).notes == [told.format("a, b", "ash, elm, oak")]
    assert not read(flat("a/images", "b/images")).notes
    many = read(flat(*(f"{of}/{of}{i:02}" for of in "ab" for i in range(10)))).notes[0]
    assert many.endswith(
        "(a00, a01, a02, a03, a04, a05, a06, a07 and 12 more) are read as part of them"
    )


def test_names_inside_classes_that_do_not_split_are_told() -> None:
    told = "the folders {} inside the classes were not used to split"
    assert read(flat("a/train", "b/train")).notes == [told.format("train")]
    assert read(flat("a/Val", "b")).notes[-1] == told.format("Val")
    named = [f"{of}/{name}_{i}.png" for of in "ab" for name in ("TRAIN", "test") for i in "12"]
    after = [f"{of}/{i}-{name}.png" for of in "ab" for name in ("train", "val") for i in "12"]
    for files in (named, after):
        assert "such as train_0.jpg and test_0.jpg, as in a/, were not used" in read(files).notes[0]
    other = [
        f"{of}/{name}{i}.png" for of in "ab" for name in ("train", "testing", "b") for i in "1x"
    ]
    assert not read([file for file in other if "x" in file]).notes
    assert not read([f"a/{file}" for file in ("train1.png", "train2.png")] + flat("b")).notes


UNPAIRED = {
    "missing": (["cat", "dog", "extra"], ["cat", "dog"], [("train/extra", "test", "")]),
    "added": (["cat", "dog"], ["cat", "dog", "extra"], [("test/extra", "train", "")]),
    "case": (
        ["Cat", "dog"],
        ["cat", "dog"],
        [("train/Cat", "test", ": did you mean cat in {root}/test, which is Cat in {root}/train?")],
    ),
    "zeros": (
        ["1", "3"],
        ["1", "03"],
        [("train/3", "test", ": did you mean 03 in {root}/test, which is 3 in {root}/train?")],
    ),
    "Unicode": (
        ["dog", "\xe9"],
        ["dog", "e\u0301"],
        [
            (
                "train/\xe9",
                "test",
                r": did you mean 'e\u0301' in {root}/test, which is '\xe9' in {root}/train?",
            )
        ],
    ),
}


@pytest.mark.parametrize("case", UNPAIRED)
def test_a_class_that_one_split_lacks(case: str) -> None:
    train, test, expected = UNPAIRED[case]
    with tree(flat(*(f"train/{c}" for c in train), *(f"test/{c}" for c in test))) as root:
        assert read_class_folders(root).problems == [
            f"{root}/{here} has no counterpart in {root}/{there}{hint.format(root=root)}"
            for here, there, hint in expected
        ]


def test_splits_whose_classes_all_differ_in_case() -> None:
    with pytest.raises(
        LayoutNotFoundError, match=r"did you mean cat in \S+/test, which is Cat in "
    ):
        read(flat("train/Cat", "train/Dog", "test/cat", "test/dog"))


def test_classes_in_one_split_only() -> None:
    for others in ([], ["test"], ["test/unknown"]):
        with tree(flat("train/oak", "train/elm", *others)) as root:
            with pytest.raises(LayoutNotFoundError) as caught:
                read_class_folders(root)
            told = str(caught.value)
        assert (
            f"hold out one image in five of train/ instead, name it: --config.data.folder={root}/train"
            in told
        )
        assert ("fgr_jax.predict takes images without labels, as in test/" in told) == bool(others)
        assert "rename" not in told


def test_a_single_class_with_folders() -> None:
    files = [*flat("a/b/c/cat", "a/b/c/dog"), "x.png"]
    with tree(files) as root, pytest.raises(LayoutNotFoundError) as caught:
        read_class_folders(root)
    assert str(caught.value).endswith(f"--config.data.folder={root}/a/b/c")
    with pytest.raises(
        LayoutNotFoundError, match=r"put them directly into \S+/train and \S+/test$"
    ):
        read(flat(*(f"{split}/a/{of}" for split in ("train", "test") for of in ("cat", "dog"))))
    files = [*flat("a/cat", "a/dog"), "run/config.json", "run/checkpoints/1"]
    with tree(files) as root, pytest.raises(LayoutNotFoundError) as caught:
        read_class_folders(root)
    assert str(caught.value).endswith(f"--config.data.folder={root}/a")


RUN_FILES = ["1/config.json", "1/checkpoints/1/x", "1/images/0.png"]
PREPARED_FILES = ["folder/x-1/1.0.0/dataset_info.json", "folder/x-1/folders.json"]


@pytest.mark.parametrize("above", ["", "train/"])
def test_output_beside_the_classes_is_left_out(above: str) -> None:
    files = flat(*(f"{above}{of}" for of in ("oak", "elm")))
    files += [f"{above}runs/{name}" for name in (*RUN_FILES, "notes.txt")]
    files += [f"{above}tfds/{name}" for name in PREPARED_FILES]
    files += [f"{above}cub/2.0.1/dataset_info.json"]
    files += flat("test/oak", "test/elm") if above else []
    listing = read(files)
    assert listing.class_names == ["elm", "oak"]
    assert not listing.problems
    assert listing.left_out == {
        image_files.PREPARED: [f"{above}cub", f"{above}tfds"],
        image_files.RUN: [f"{above}runs"],
    }


CONTENTS = {
    "a run and more": ([*RUN_FILES, "more.zip"], r"1 \(the folder of a run, .*more.zip \("),
    "a prepared data set and more": (
        [*PREPARED_FILES, "downloads/a.zip"],
        r"folder/x-1/1.0.0 \(a prepared data set, .* and 1 more|downloads/a.zip",
    ),
    "images": (["a.tga"], r"a.tga \(an image of a format that is not read\)"),
    "a table": (["a.csv"], r"a.csv \(a text file\)"),
    "an archive": (["a.zip"], r"a.zip \(a zip archive\)"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_nobody_is_told_to_remove_what_is_not_empty(case: str) -> None:
    files, words = CONTENTS[case]
    bytes_of = {".tga": b"\0\0\2" + bytes(40), ".zip": b"PK\3\4" + bytes(40), ".csv": b"a,b\n1,2\n"}
    with tree([*flat("oak", "elm"), *(f"other/{file}" for file in files)]) as root:
        for path in (root / "other").rglob("*.*"):
            if path.suffix in bytes_of:
                path.write_bytes(bytes_of[path.suffix])
        (problem,) = read_class_folders(root).problems
    assert problem.startswith(f"{root}/other holds no images but ")
    assert problem.endswith(": put images into it or move it to another folder")
    assert re.search(words, problem)


def test_empty_folders_may_be_removed() -> None:
    with tree(flat("oak", "elm")) as root:
        (root / "a" / "b").mkdir(parents=True)
        (root / "c").mkdir()
        assert read_class_folders(root).problems == [
            f"{root}/a holds only empty folders: put images into it or move it to another folder",
            f"{root}/c is empty: put images into it or remove it",
        ]


def test_folders_with_output_only() -> None:
    files = [f"{of}/{name}" for of in "ab" for name in RUN_FILES]
    with tree(files) as root:
        assert read_class_folders(root).problems == [
            f"{root} holds no folders of classes but a ({image_files.RUN}), b ({image_files.RUN})"
        ]
    with tree(["1.0.0/dataset_info.json"]) as root:
        with pytest.raises(UserError, match="is a prepared data set"):
            read_class_folders(root / "1.0.0")
        with pytest.raises(UserError, match=r"but 1.0.0 \(a prepared data set"):
            read_class_folders(root)


def test_what_lies_beside_the_classes_is_told() -> None:
    listing = read(
        [
            *flat("wrapped/train/oak", "wrapped/train/elm", "wrapped/test/oak", "wrapped/test/elm"),
            *("wrapped/x.png", "wrapped/train/x.png", "wrapped/test/notes.md", "README.md"),
            *("wrapped/my run/config.json", "wrapped/my run/checkpoints/1/x"),
        ]
    )
    assert listing.left_out == {
        BESIDE: ["wrapped/train/x.png", "wrapped/x.png"],
        image_files.NO_IMAGE: ["README.md", "wrapped/test/notes.md"],
        image_files.RUN: ["wrapped/my run"],
    }


def test_everything_that_is_wrong_is_told_at_once() -> None:
    files = [*flat("oak", "elm", " "), "one/0.png", "none/0.txt", "a\nb/0.png", "a\nb/1.png"]
    with tree(files) as root:
        (root / "oak" / "gone.png").symlink_to("/nowhere")
        (root / "lost").symlink_to("lost")
        (root / "elm" / "empty.png").touch()
        with pytest.raises(UserError) as caught:
            check(read_class_folders(root), "data set folder", None, {})
        assert [shown(line) for line in caught.value.args] == [
            "data set folder: 7 problems; nothing was prepared; correct this and run the command again",
            f"{root}/one holds one image: a class needs two, one of them for testing",
            f"{root}/none holds no images but 0.txt (a text file): put images into it or move it to "
            "another folder",
            f"{root}/lost is a broken link",
            f"{root}/oak/gone.png is a broken link",
            "the class ' ' has a name without a visible character: rename it",
            r"the class 'a\nb' has a name with a control character or line break: rename it",
            "train: elm/empty.png is empty",
        ]


def test_a_long_list_of_problems_is_shortened() -> None:
    with tree(flat("oak", "elm")) as root:
        for index in range(1234):
            (root / "oak" / f"{index:04}.png").symlink_to("/nowhere")
        with pytest.raises(UserError) as caught:
            check(read_class_folders(root), "data set folder", None, {})
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("data set folder: 1,234 problems; ")
    assert lines[20].endswith("/oak/0019.png is a broken link")
    assert lines[21:] == ["  and 1,214 more"]


BAD_NAMES = {
    "caf\udce9": r"the class 'caf\xe9' has a name that is not UTF-8",
    "a\nb": r"the class 'a\nb' has a name with a control character or line break",
    "a\rb": r"the class 'a\rb' has a name with a control",
    "a\u2028b": r"the class 'a\u2028b' has a name with a control",
    "\x1b[31m": r"the class '\x1b[31m' has a name with a control",
    "": "the class '' has a name without a visible character",
    " ": "the class ' ' has a name without a visible character",
    "\u3000\u200b": "has a name without a visible character",
    "cat ": "the class 'cat ' has a name that begins or ends with white space",
    "\xa0cat": "has a name that begins or ends with white space",
    "\ufeff\u200b": "has a name without a visible character",
    "\u3164": r"the class '\u3164' has a name without a visible character",
    "\u2800 \ufe0f": "has a name without a visible character",
    **{
        f"ca{invisible}t": f"the class {f'ca{invisible}t'!a} has a name that differs from 'cat' in"
        for invisible in "\u200b\u200d\u2060\ufeff\u200e\u202e\u3164\u2800\ufe0f\u034f\xad\U000e0041"
    },
    "cafe\u0301": r"the class 'cafe\u0301' has a name that is another way to write 'caf\xe9' in Unicode",
}
GOOD_NAMES = [
    *(
        "cat",
        "Cat",
        "café",
        "[x]",
        ":cat:",
        "10",
        "9",
        "🐈‍⬛",
        "חתול",
        "\u202edog",
        "क्‍ष",
        "\u0600",
        "e\u0301",
        "a  b",
        "-",
    ),
    *("<b>", "a,b", '"', "'", "%s", "{}", "\\n", "CON", "日本楓", "\U0001fae8"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_classes_that_cannot_be_kept(name: str) -> None:
    with pytest.raises(UserError) as caught:
        check(Listing([*GOOD_NAMES, "café", name], {}), "data set trees", None, {})
    told = [shown(line) for line in caught.value.args if "rename it" in line]
    assert len(told) == 1
    assert BAD_NAMES[name] in told[0]


@settings(deadline=None)
@given(st.lists(st.text(st.characters(), max_size=6), max_size=4))
def test_any_problem_of_any_name_is_told_on_a_line_of_its_own(names: list[str]) -> None:
    problems = [f"{name} is a broken link" for name in names]
    with pytest.raises(UserError) as caught:
        check(Listing(names, {}, problems=problems), "data set trees", None, {})
    heading, *lines = (shown(line) for line in caught.value.args)
    count = int(heading.removeprefix("data set trees: ").partition(" ")[0])
    assert len(lines) == min(count, 21)
    assert sum(line.endswith(" is a broken link") for line in lines) == len(names)
    assert "\n".join([heading, *lines]).encode().decode().splitlines() == [heading, *lines]


def test_a_class_of_which_all_or_no_images_are_selected_for_testing() -> None:
    numbered = [f"oak/{number}.png" for number in range(200)]
    selected = [file for file in numbered if is_test(file.removeprefix("oak/"))]
    others = [file for file in numbered if file not in selected]
    for files in (selected[:2], selected, others[:2], others):
        train, test = split_by_name(files)
        assert min(len(train), len(test)) == 1
    # The hash is the measure: of the others, the one that comes next is used for testing.
    assert split_by_name(others)[1] == split_by_name([*split_by_name(others)[1], *others[:5]])[1]
    assert split_by_name(selected[:1]) == ([], selected[:1])


@settings(deadline=None)
@given(st.lists(names, unique=True, min_size=2, max_size=40), st.data())
def test_each_class_has_images_in_both_halves(files: list[str], data: st.DataObject) -> None:
    files = [f"oak/{name}" for name in files]
    train, test = split_by_name(files)
    assert train
    assert test
    assert sorted(train + test) == sorted(files)
    # Where both halves have images, the split is that of the names alone, as it always was.
    of_test = {file for file in files if is_test(file.rpartition("/")[2])}
    if of_test and of_test != set(files):
        assert set(test) == of_test
    again = split_by_name(data.draw(st.permutations(files)))
    assert (set(again[0]), set(again[1])) == (set(train), set(test))
    # One more image moves at most one other.
    more = [set(half) for half in split_by_name([*files, "oak/one more.png"])]
    assert len(set(train) - more[0]) + len(set(test) - more[1]) <= 1


def test_notes_are_valid_text() -> None:
    odd = os.fsdecode(b"caf\xe9 train")
    with tree(flat(f"a/{odd}", "a/test", "b/x", "c")) as root:
        listing = read_class_folders(root, lenient=True)
    assert listing.notes
    "".join(listing.notes).encode()

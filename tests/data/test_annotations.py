"""Annotation files in any encoding and with any ends of lines: read, or refused with the way out."""

import codecs
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import official_layouts as layouts
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.data.prepare.archives import unpack
from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.listing import (
    ImageFile,
    Listing,
    check,
    find,
    from_one,
    read_lines,
    read_matlab,
    read_text,
    whole,
)
from fgr_jax.data.sets import elpv
from fgr_jax.data.sets.aircraft import Aircraft
from fgr_jax.data.sets.cars import Cars
from fgr_jax.data.sets.cub import Cub
from fgr_jax.data.sets.dogs import Dogs
from fgr_jax.data.sets.imagenet import Imagenet
from fgr_jax.errors import UserError

UNICODE = {
    "UTF-8": (b"", "utf-8"),
    "UTF-8 with a mark": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16, little-endian": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16, big-endian": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "UTF-32, little-endian": (codecs.BOM_UTF32_LE, "utf-32-le"),
    "UTF-32, big-endian": (codecs.BOM_UTF32_BE, "utf-32-be"),
}
# White space at either end of a line is no part of a name, and an empty line no name.
names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0\ufeff"), min_size=1
)
names = names.map(str.strip).filter(bool)


def rewrite(folder: Path, encoding: str, end: str) -> None:
    """Converts all text files in `folder`."""
    mark, codec = UNICODE[encoding]
    for path in (*folder.rglob("*.txt"), *folder.rglob("*.csv")):
        text = path.read_text(encoding="utf-8").replace("\n", end)
        path.write_bytes(mark + text.encode(codec))


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("builder", "write"),
    [
        (Aircraft, layouts.write_aircraft),
        (Cub, layouts.write_cub),
        (Imagenet, layouts.write_imagenet),
    ],
)
def test_every_data_set_reads_all_of_unicode(
    tmp_path: Path,
    builder: type[ImageBuilder],
    write: Callable[[Path], layouts.Written],
    encoding: str,
    end: str,
) -> None:
    for archive in write(tmp_path).archives:
        unpack(archive, tmp_path / "data" / archive.name.partition(".")[0], lambda _: None)
    before = builder.read(tmp_path / "data")
    rewrite(tmp_path / "data", encoding, end)
    after = builder.read(tmp_path / "data")
    assert before.class_names == after.class_names
    for split, files in before.splits.items():
        assert [file[:3] for file in files] == [file[:3] for file in after.splits[split]]


@settings(deadline=None)
@given(st.lists(names), st.sampled_from(sorted(UNICODE)), st.sampled_from(["\n", "\r\n", "\r"]))
def test_names_are_split_at_the_ends_of_lines_and_nowhere_else(
    lines: list[str], encoding: str, end: str
) -> None:
    mark, codec = UNICODE[encoding]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "classes.txt"
        path.write_bytes(mark + "".join(f"{line}{end}{end}" for line in lines).encode(codec))
        assert read_lines(path, 1) == [[line] for line in lines]
        path.write_bytes(mark + end.join(f"7 {line}" for line in lines).encode(codec))
        assert read_lines(path, 2) == [["7", line] for line in lines]


OTHERS = {
    "Latin-1": ("Café 1\nB\n".encode("latin-1"), "byte 4 is 0xe9", "WINDOWS-1252"),
    "Windows": ("B\n“Café”\n".encode("cp1252"), "byte 3 is 0x93", "WINDOWS-1252"),
    "Cyrillic": ("Кошка\n".encode("cp1251"), "byte 1 is 0xca", "WINDOWS-1252"),
    "Japanese": ("猫\n".encode("shift-jis"), "byte 1 is 0x94", "WINDOWS-1252"),
    "UTF-16 without a mark": ("B\n".encode("utf-16-le"), "character 2 is a NUL", "UTF-16LE"),
    "the same with an umlaut": ("1 Grün\n".encode("utf-16-le"), "byte 9 is 0xfc", "UTF-16LE"),
    "the same, big-endian": ("1 Grün\n".encode("utf-16-be"), "byte 10 is 0xfc", "UTF-16BE"),
    "the same in Chinese": ("黑猫 1\n".encode("utf-16-le"), "character 5 is a NUL", "UTF-16LE"),
    "UTF-32 without a mark": ("1 Grün\n".encode("utf-32-be"), "byte 20 is 0xfc", "UTF-32BE"),
}
DAMAGED = {
    "a NUL": (b"A\nB\0\n", "is not text in UTF-8 (character 4 is a NUL): download it again"),
    "padding": (
        b"1 a\n" + bytes(9),
        "is not text in UTF-8 (character 5 is a NUL): download it again",
    ),
    "zeros": (bytes(50), "is nothing but zeros, not a list of annotations: download it again"),
    "half a character": (
        "B\nC".encode("utf-16")[:-1],
        "is not whole as text in UTF-16 (byte 7 is 0x43): download it again",
    ),
    "half a character of four": (
        "B\nC".encode("utf-32")[:-2],
        "is not whole as text in UTF-32 (byte 13 is 0x43): download it again",
    ),
    "an image": (
        b"\x89PNG\r\n\x1a\n\0\0",
        "is a PNG, not a list of annotations: download it again",
    ),
    "a page": (
        b"<!DOCTYPE html><html>",
        "is an HTML page, not a list of annotations: download it again",
    ),
    "a pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n",
        "is a Git LFS pointer, not a list of annotations: run git lfs pull",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_annotations_that_are_damaged_or_something_else(tmp_path: Path, case: str) -> None:
    data, message = DAMAGED[case]
    path = tmp_path / "variants.txt"
    path.write_bytes(data)
    for reader in (read_text, lambda path: read_lines(path, 1), elpv.read_labels):
        with pytest.raises(UserError) as caught:
            reader(path)
        assert str(caught.value) == f"{path} {message}"


@pytest.mark.parametrize("number", ["1e400", "-1e400", "inf", "nan", "2", "x"])
def test_probabilities_that_are_none(tmp_path: Path, number: str) -> None:
    (tmp_path / "labels.csv").write_text(f"images/a.png {number} mono\n")
    with pytest.raises(UserError, match=r"line 1: .* is not 'FILE PROBABILITY TYPE'"):
        elpv.read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize("case", OTHERS)
def test_other_encodings_are_not_guessed(tmp_path: Path, case: str) -> None:
    data, what, perhaps = OTHERS[case]
    path = tmp_path / "variants.txt"
    path.write_bytes(data)
    for reader in (read_text, lambda path: read_lines(path, 1), elpv.read_labels):
        with pytest.raises(UserError) as caught:
            reader(path)
        assert f"{path} is not text in UTF-8 ({what}" in str(caught.value)
        assert f"`iconv -f {perhaps} -t UTF-8`" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
    for builder in (Aircraft, Cub):  # which read it below a folder of data
        (tmp_path / "image_class_labels.txt").write_bytes(data)
        (tmp_path / "classes.txt").write_bytes(data)
        with pytest.raises(UserError, match="is not text in UTF-8"):
            builder.read(tmp_path)


def test_matlab_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "train_list.mat"
    scipy.io.savemat(path, {"labels": np.arange(400)}, do_compression=True)
    whole = path.read_bytes()
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(600))
    with pytest.raises(UserError, match=r"train_list.mat is in MATLAB's format 7.3.*-v7"):
        read_matlab(path, "labels", int)
    for data in (b"", b"x", bytes(600), b"<html>" * 99, *(whole[:i] for i in range(1, 300, 7))):
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"train_list.mat is damaged or incomplete .*download"):
            read_matlab(path, "labels", int)
    path.write_bytes(whole)
    assert read_matlab(path, "labels", int) == list(range(400))
    with pytest.raises(UserError, match=r"damaged or incomplete \('file_list'\)"):
        read_matlab(path, "file_list", str)
    (tmp_path / "Images").mkdir()
    with pytest.raises(UserError, match=r"damaged or incomplete \('file_list'\)"):
        Dogs.read(tmp_path)


def test_folders_of_other_programs_hold_no_annotations(tmp_path: Path) -> None:
    for folder in ("__MACOSX", "archive"):
        (tmp_path / folder / "cars_train").mkdir(parents=True)
    assert find(tmp_path, "cars_train/") == tmp_path / "archive" / "cars_train"


BAD_CUB = {
    "classes.txt": (
        "1 001.A\n01 002.B\n",
        "classes.txt, line 2: number 1 has the value '002.B', and '001.A' in an earlier line",
    ),
    "bounding_boxes.txt ": (
        "1 0 0 5 1e400\n",
        "bounding_boxes.txt, line 1, image 1: '0 0 5 1e400' are not 4",
    ),
    "bounding_boxes.txt": (
        "1 0 0 5 wide\n",
        "bounding_boxes.txt, line 1, image 1: '0 0 5 wide' are not 4",
    ),
    "parts/part_locs.txt": ("1 1 2 3 no\n", "part_locs.txt, line 1: '2 3 no' are not 3 numbers"),
    "parts/part_locs.txt ": (
        "1 1 2 3 1\n1 1 2 4 1\n",
        "part_locs.txt, line 2: part 1 of image 1 is",
    ),
    "images.txt": ("# 001.A/x.jpg\n", "images.txt, line 1: '#' is not a whole number"),
    "image_class_labels.txt": (
        "1 1\n\n01 2\n",
        "image_class_labels.txt, line 3: number 1 has the value '2', and '1' in an earlier line",
    ),
    "image_class_labels.txt ": (
        "1 2\n",
        "image_class_labels.txt, line 1: the label of 001.A/x.jpg is 2, and that of its folder is 1",
    ),
    "image_class_labels.txt  ": (
        "1 1_0\n",
        "line 1, image 1: the label 1_0 is not in the range 1 to 2",
    ),
    "train_test_split.txt": (
        "1 1\n1 0\n",
        "train_test_split.txt, line 2: number 1 has the value '0', and '1' in an earlier line",
    ),
    "train_test_split.txt ": ("1 2\n", "train_test_split.txt, line 1: '2' is neither 1, for"),
}


@pytest.mark.parametrize("file", BAD_CUB)
def test_numbers_that_are_none(tmp_path: Path, file: str) -> None:
    (tmp_path / "parts").mkdir()
    files = {
        "classes.txt": "1 001.A\n2 002.B\n",
        "image_class_labels.txt": "1 1\n",
        "images.txt": "1 001.A/x.jpg\n",
        "train_test_split.txt": "1 1\n",
        "bounding_boxes.txt": "1 0 0 5 5\n",
        "parts/part_locs.txt": "1 1 2 3 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert len(Cub.read(tmp_path).splits["train"]) == 1
    text, words = BAD_CUB[file]
    (tmp_path / file.strip()).write_text(text)
    with pytest.raises(UserError) as caught:
        Cub.read(tmp_path)
    assert words in str(caught.value)


def test_only_a_number_is_cut_off_the_name_of_a_class(tmp_path: Path) -> None:
    names = ["001.St. Bernard", "St. Bernard 2", "737-200.v2", "4.", "05.5.x"]
    files = {
        "classes.txt": "".join(f"{n} {name}\n" for n, name in enumerate(names, 1)),
        **dict.fromkeys(("image_class_labels.txt", "images.txt", "train_test_split.txt"), ""),
        "bounding_boxes.txt": "",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    expected = ["St. Bernard", "St. Bernard 2", "737-200.v2", "4.", "5.x"]
    assert Cub.read(tmp_path).class_names == expected


@given(
    st.one_of(st.floats(), st.integers(-9, 9), st.sampled_from(["1", "1_0", "\u0661", "+1", ""]))
)
def test_what_is_not_whole_is_no_label(value: float | str) -> None:
    is_whole = value == "1" or (not isinstance(value, str) and value >= 0 and value % 1 == 0)
    if is_whole:
        assert whole(value) == int(value)
    else:
        with pytest.raises((ValueError, OverflowError)):
            whole(value)
    if not is_whole or not 1 <= int(value) <= 3:
        with pytest.raises(UserError, match=r"x: the label .* is not in the range 1 to 3"):
            from_one(value, 3, "x")


DOGS: dict[str, tuple[list[float], str]] = {
    "another label": (
        [1, 2, 2, 2],
        "test_list.mat: the label of n1-A/y.jpg is 2, and that of its folder is 1",
    ),
    "two folders": (
        [1, 1, 1, 2],
        "train_list.mat: the label of n2-B/x.jpg is 1, which is that of the folder",
    ),
    "not whole": (
        [1.7, 2, 1, 2],
        r"train_list.mat is damaged or incomplete \(1.7 is not a whole number\)",
    ),
}


@pytest.mark.parametrize("case", DOGS)
def test_labels_that_contradict_folders(tmp_path: Path, case: str) -> None:
    (tmp_path / "Images").mkdir()

    def write(labels: list[float]) -> None:
        names = np.array([f"{of}/{name}.jpg" for name in "xy" for of in ("n1-A", "n2-B")], object)
        for split, part in (("train", slice(0, 2)), ("test", slice(2, 4))):
            content = {"file_list": names[part], "labels": np.array(labels[part])}
            scipy.io.savemat(tmp_path / f"{split}_list.mat", content)

    write([1, 2, 1, 2])
    assert Dogs.read(tmp_path).class_names == ["A", "B"]
    labels, told = DOGS[case]
    write(labels)
    with pytest.raises(UserError, match=told):
        Dogs.read(tmp_path)


CARS = {
    "class": (1.9, 0, r"cars_annos.mat is damaged or incomplete \(1.9 is not a whole number\)"),
    "test": (1.0, 2, "cars_annos.mat, car_ims/1.jpg: 'test' is 2, neither 1 nor 0"),
}


@pytest.mark.parametrize("case", CARS)
def test_cars_with_other_numbers(tmp_path: Path, case: str) -> None:
    (tmp_path / "car_ims").mkdir()

    def write(label: float, test: int) -> None:
        fields = [("relative_im_path", object), ("class", object), ("test", object)]
        rows = np.array([("car_ims/1.jpg", label, test), ("car_ims/2.jpg", 1, 1)], fields)
        content = {"class_names": np.array(["Audi A", "BMW B"], object), "annotations": rows}
        scipy.io.savemat(tmp_path / "cars_annos.mat", content)

    write(1.0, 0)
    assert list(map(len, Cars.read(tmp_path).splits.values())) == [1, 1]
    label, test, told = CARS[case]
    write(label, test)
    with pytest.raises(UserError, match=told):
        Cars.read(tmp_path)


def test_synsets_of_one_number(tmp_path: Path) -> None:
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    for folder in ("train", "val/n01440764"):
        (tmp_path / folder).mkdir(parents=True)
    synsets = np.array([(1, "n01440764", "tench"), (1, "n01443537", "goldfish")], fields)
    scipy.io.savemat(tmp_path / "meta.mat", {"synsets": synsets})
    with pytest.raises(UserError, match=r"meta.mat: 1 is n01443537, but n01440764 before"):
        Imagenet.read(tmp_path)


def test_an_image_in_both_splits_is_named(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_bytes(b"x")
    files = {
        name: ImageFile(str(tmp_path / f"{name}.jpg"), n % 2, name) for n, name in enumerate("abcd")
    }
    listing = Listing(
        ["one", "two"],
        {
            "train": [files["a"], files["b"], files["c"]._replace(name="e"), files["c"]],
            "test": [files["d"], files["a"]._replace(label=1)],
        },
    )
    with pytest.raises(UserError) as caught:
        check(listing, "data set x", None, {})
    assert caught.value.args[1:] == (
        "train: c is also listed in train",
        "test: a is also listed in train",
    )


@pytest.mark.parametrize("probability", ["0.5", "-0.1", "0.34"])
def test_probabilities_between_the_levels(tmp_path: Path, probability: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"a.png {probability} mono\n")
    with pytest.raises(UserError, match=r"line 1: .* is not 'FILE PROBABILITY TYPE'"):
        elpv.read_labels(path)
    path.write_text("a.png 0.33333 mono\na.png 1.0 mono\n")
    with pytest.raises(UserError, match=r"line 2: 'a.png 1.0 mono' is the second line of a.png"):
        elpv.read_labels(path)

"""Tables of images: which columns are what, what is wrong in which line, and the same as a folder."""

import csv
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from tiny_run import QUIET

from fgr_jax.config import Config, Data, validate
from fgr_jax.data.prepare import variants
from fgr_jax.data.prepare.listing import Listing
from fgr_jax.data.sets.folder import Folder
from fgr_jax.data.sets.table import read_tables
from fgr_jax.data.source import open_splits
from fgr_jax.errors import UserError
from fgr_jax.runs.description import Description

PATHS = [f"{name}/{index}.png" for name in ("elm", "oak") for index in range(6)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 6 images for each of two classes."""
    folder = tmp_path / "trees"
    for seed, path in enumerate(PATHS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
        (folder / path).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return folder


def table(folder: Path, text: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def read(path: Path, columns: str = "", folder: Path | str = "") -> Listing:
    return read_tables(
        Data(name="folder", table=str(path), table_columns=columns, folder=str(folder))
    )


def refusal(path: Path, columns: str = "", folder: Path | str = "") -> str:
    with pytest.raises(UserError) as caught:
        read(path, columns, folder)
    return str(caught.value)


def rows(*more: Sequence[str], paths: Sequence[str] = PATHS) -> list[Sequence[str]]:
    return [*((path, path.split("/")[0]) for path in paths), *more]


def as_csv(lines: Sequence[Sequence[Any]], **options: Any) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, **options).writerows(lines)
    return file.getvalue()


def labeled(listing: Listing) -> dict[str, list[tuple[str, str]]]:
    return {
        split: [(file.name, listing.class_names[file.label]) for file in files]
        for split, files in listing.splits.items()
    }


def write_parquet(path: Path) -> None:
    columns = list(zip(*rows(), strict=True))
    pyarrow.parquet.write_table(
        pyarrow.table({"Image_Path": columns[0], "species": columns[1]}), path
    )


def write_json_lines(path: Path) -> None:
    lines = [
        json.dumps({"more": [1, "\u2028"], "file": p, "Category": c}, ensure_ascii=False)
        for p, c in rows()
    ]
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")


FORMATS = {
    "commas": lambda path: path.write_text(as_csv([("path", "label"), *rows()])),
    "semicolons": lambda path: path.write_text(
        as_csv([("File Name", "a,b", "Class"), *((p, "1,2,3", c) for p, c in rows())], delimiter=";")
    ),
    "tabs and the order of the rows": lambda path: path.write_text(
        as_csv([("LABEL", "image-path"), *((c, p) for p, c in rows()[::-1])], delimiter="\t")
    ),
    "a mark, Windows": lambda path: path.write_bytes(
        as_csv([("path", "label"), *((p.replace("/", "\\"), c) for p, c in rows())]).encode("utf-8-sig")
    ),
    "UTF-16": lambda path: path.write_bytes(as_csv([("path", "label"), *rows()]).encode("utf-16")),
    "quotes, spaces, empty lines": lambda path: path.write_text(
        'path, remark, label\n\n,,\n'
        + "".join(f' "./{p}", "two ""quoted""\nlines", {c} \r\n' for p, c in rows())
    ),
    "Parquet": write_parquet,
    "JSON Lines": write_json_lines,
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_listing_of_the_folder(images: Path, form: str) -> None:
    path = images / "anything"
    FORMATS[form](path)
    expected = Folder.read(images)
    found = read(path)
    assert labeled(found) == labeled(expected)
    assert found.class_names == expected.class_names
    assert [Path(file.path) for file in found.splits["test"]] == [
        Path(file.path) for file in expected.splits["test"]
    ]


def test_a_table_and_the_folder_are_the_same_data_set(images: Path, tmp_path: Path) -> None:
    here: Any = {"name": "folder", "data_dir": str(tmp_path / "tfds")}
    of_folder, _ = open_splits(Data(folder=str(images), **here), QUIET)
    listed = table(tmp_path, as_csv([("path", "label"), *rows()]))
    data = Data(table=str(listed), folder=str(images), **here)
    of_table, _ = open_splits(data, QUIET)
    assert of_table.identity == of_folder.identity
    assert len(list((tmp_path / "tfds" / "folder").iterdir())) == 1

    def run(data: Data, source: Any) -> Description:
        fields = {"data.folder": data.folder, "data.table": data.table}
        return Description(fields, source.identity, source.class_names)

    moved = images.rename(tmp_path / "moved")
    elsewhere = Data(table=str(table(moved, listed.read_text())), **here)
    of_moved, _ = open_splits(elsewhere, QUIET)
    assert not run(data, of_table).differences(run(elsewhere, of_moved))
    # Without the table, a run finds its images.
    gone = Data(table=str(moved / "gone.csv"), **here)
    assert open_splits(gone, QUIET, of_table.identity)[0].identity == of_table.identity
    shutil.rmtree(tmp_path / "tfds" / "folder")
    with pytest.raises(UserError, match=r"--config\.data\.table=.*gone\.csv: no such file"):
        open_splits(gone, QUIET, of_table.identity)


@pytest.mark.parametrize("is_remembered", [True, False])
def test_other_labels_and_groups_of_the_same_files_are_another_data_set(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_remembered: bool
) -> None:
    if is_remembered:  # without a wait until the files are old
        monkeypatch.setattr(variants, "_CLOCK_RESOLUTION", -10.0)

    def opened(text: str) -> Any:
        data = Data(name="folder", table=str(table(images, text)), data_dir=str(tmp_path / "tfds"))
        return open_splits(data, QUIET)[0]

    head = ("path", "label", "split", "group")
    split = ["train"] * 4 + ["test"] * 2
    lines = [(p, c, split[i % 6], f"g{i}") for i, (p, c) in enumerate(rows())]
    first = opened(as_csv([head, *lines]))
    renamed = opened(as_csv([head, *((p, "ash" + c, s, g) for p, c, s, g in lines)]))
    assert renamed.class_names == ["ashelm", "ashoak"]
    assert opened(as_csv([head, *lines])).class_names == ["elm", "oak"]
    grouped = opened(as_csv([head, *((p, c, s, "one") for p, c, s, g in lines)]))
    assert not grouped.identity.is_same_data(first.identity)
    plain = opened(as_csv([head[:3], *(line[:3] for line in lines)]))
    assert not plain.identity.is_same_data(first.identity)


def test_given_splits_have_the_names_that_folders_may_have(images: Path) -> None:
    names = ["train", "Training", "trainval", "val", "TEST", "test_set"]
    lines = [(p, c, names[i % 6]) for i, (p, c) in enumerate(rows())]
    found = labeled(read(table(images, as_csv([("path", "label", "Subset"), *lines]))))
    expected = {"train": [0, 1, 2, 6, 7, 8], "validation": [3, 9], "test": [4, 5, 10, 11]}
    assert found == {
        split: [(PATHS[index], PATHS[index][:3]) for index in chosen]
        for split, chosen in expected.items()
    }
    (note,) = read(images / "labels.csv").notes
    assert note.startswith("2 images for validation are not used: --config.data.validation_split=")
    # Without images for testing, those for validation are; as with folders.
    lines = [(p, c, "dev" if i % 3 else "train") for i, (p, c) in enumerate(rows())]
    found_two = read(table(images, as_csv([("path", "label", "set"), *lines])))
    assert {split: len(files) for split, files in found_two.splits.items()} == {
        "train": 4,
        "test": 8,
    }
    assert any("that for validation is used for testing" in note for note in found_two.notes)


def test_one_table_for_each_split_without_header_lines(images: Path) -> None:
    """The layout of GroceryStoreDataset."""
    for name, chosen in (("train", (0, 1, 2)), ("val", (3,)), ("test", (4, 5))):
        lines = "".join(
            f"{path}, {10 * (number >= 6) + 2}, 0\n"
            for number, path in enumerate(PATHS)
            if number % 6 in chosen
        )
        table(images, lines, f"{name}.txt")
    files = ",".join(str(images / f"{name}.txt") for name in ("train", "val", "test"))
    data = Data(name="folder", table=files, table_columns="path=1,label=2")
    listing = read_tables(data)
    assert listing.class_names == ["2", "12"]  # by number
    assert [len(listing.splits[split]) for split in ("train", "validation", "test")] == [6, 2, 4]
    data.table_columns = ""
    with pytest.raises(UserError) as caught:
        read_tables(data)
    assert str(caught.value).startswith(
        f"{images / 'train.txt'} has the columns 'elm/0.png', '2', '0', and none is called like a path: "
        "name them with --config.data.table_columns=path=NAME,label=NAME, or numbers (path=1,label=2) "
    )
    (images / "test.txt").rename(images / "rest.txt")
    data.table, data.table_columns = files.replace("test.txt", "rest.txt"), "path=1,label=2"
    with pytest.raises(UserError, match=r"must be those of splits.* and rest.txt is not"):
        read_tables(data)


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("path,label,species", "", "'label' or 'species' could hold the labels: name them with"),
        ("path,a,b", "", "has the columns 'path', 'a', 'b', and none is called like a label"),
        ("path,label,b", "label=c", "'c' is none of them"),
        ("path,b,b", "label=b", "'b' is the name of several"),
        ("path,label,fold,set", "", "'fold' or 'set' could hold the splits"),
        ("path,a,b", "path=1,label=4", "none has the number 4"),
    ],
)
def test_columns_that_cannot_be_told(images: Path, header: str, columns: str, message: str) -> None:
    lines = [(p, c, "x", "y")[: header.count(",") + 1] for p, c in rows()]
    text = refusal(table(images, header + "\n" + as_csv(lines)), columns)
    assert message in text
    assert "--config.data.table_columns=" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("a,b,label", "path=a,label=b"),
        ("path,b,c", "label=2"),
        ("filename,b,c", "path=1,label=2"),  # a header line, as a usual name says
        (None, "path=1,label=2"),
        ("path,label,split", "split="),
        ("path,label,species", "label=label"),
    ],
)
def test_columns_that_are_told(images: Path, header: str | None, columns: str) -> None:
    text = "" if header is None else header + "\n"
    found = read(table(images, text + as_csv([(p, c, "?") for p, c in rows()])), columns)
    assert labeled(found) == labeled(Folder.read(images))


def test_every_row_that_is_wrong_is_named_with_its_line_and_column(images: Path) -> None:
    (images / "noext.png").touch()
    text = as_csv(
        [
            ("remark", "path", "label"),
            *(("two\nlines", p, c) for p, c in rows()),  # lines 2 to 25
            ("", "elm/9.png", "elm"),
            ("", "elm/1.png", " "),
            ("", "", "elm"),
            ("", "elm", "elm"),
            ("", "noext", "elm"),
            ("", "https://x/y.png", "elm"),
            ("", "a\0b".replace("\0", "\ud800"), "elm"),
            ("", "elm/2.png", "elm", "more"),
        ]
    )
    path = table(images, text.replace("\ud800", "?"))
    lines = refusal(path).split("\n  ")
    assert lines[0] == (
        f"--config.data.table={path}: 8 problems; nothing was prepared; correct this and run the "
        "command again"
    )
    assert sorted(lines[1:]) == sorted(
        [
            f"{path}, line 26, column 'path': elm/9.png is missing in {images}",
            f"{path}, line 27, column 'label': the label is empty",
            f"{path}, line 28, column 'path': the path is empty",
            f"{path}, line 29, column 'path': elm is a folder in {images}",
            f"{path}, line 30, column 'path': noext is missing in {images}, but noext.png is there: "
            "write the suffix",
            f"{path}, line 31, column 'path': https://x/y.png is the address of an image: download it "
            "and name the file",
            f"{path}, line 32, column 'path': a?b is missing in {images}",
            f"{path}, line 33 has 4 cells, and line 1 has 3: a separator within a cell needs quotation "
            "marks around the cell",
        ]
    )


def test_rows_that_contradict_each_other(images: Path) -> None:
    again = [
        ("elm/1.png", "oak", "train"),
        ("./elm/2.png", "elm", "test"),
        ("elm/3.png", "elm", "train"),
    ]
    lines = [(p, c, "test" if i % 3 == 0 else "train") for i, (p, c) in enumerate(rows())]
    path = table(images, as_csv([("path", "label", "split"), *lines, *again]))
    text = refusal(path)
    assert (
        f"{path}, line 14: elm/1.png has the label 'oak' instead of 'elm' of {path}, line 3" in text
    )
    assert f"line 15: elm/2.png has the split 'test' instead of 'train' of {path}, line 4" in text
    assert f"line 16: elm/3.png has the split 'train' instead of 'test' of {path}, line 5" in text
    path = table(images, as_csv([("path", "label"), *rows(*rows()[:2])]))
    found = read(path)
    assert labeled(found) == labeled(Folder.read(images))
    assert "2 rows repeat an earlier one; each image is used once" in found.notes


def test_splits_that_are_none(images: Path) -> None:
    lines = [(p, c, str(i % 5)) for i, (p, c) in enumerate(rows())]
    text = refusal(table(images, as_csv([("path", "label", "fold"), *lines])))
    assert "5 problems" in text  # each value once
    assert "line 2, column 'fold': '0' is neither train, validation nor test; " in text
    lines = [(p, c, "train station" if i % 3 else "test") for i, (p, c) in enumerate(rows())]
    text = refusal(table(images, as_csv([("path", "label", "split"), *lines])))
    assert "line 3, column 'split': 'train station' is neither train, validation nor test; " in text
    lines = [(p, c, "train") for p, c in rows()]
    text = refusal(table(images, as_csv([("path", "label", "split"), *lines])))
    assert "all images are in the split train, and there must be train and test; " in text


def test_labels_are_compared_as_the_names_of_class_folders(images: Path, tmp_path: Path) -> None:
    names = ["élan", "e\u0301lan", "Oak 1", "oak_01", " oak_01", "birch"]
    lines = [(p, names[i % 6]) for i, (p, _) in enumerate(rows())]
    path = table(images, as_csv([("path", "label"), *lines]))
    listing = read(path)
    assert len(listing.class_names) == 5  # spaces at the ends do not count
    (note,) = listing.notes
    assert note.startswith(
        "labels that differ in little are different classes: 'Oak 1' and 'oak_01', "
    )
    data = Data(name="folder", table=str(path), data_dir=str(tmp_path / "tfds"))
    with pytest.raises(UserError, match=r"another way to write .* in Unicode: rename it"):
        open_splits(data, QUIET)


def test_paths_out_of_the_folder_and_composed_otherwise(images: Path, tmp_path: Path) -> None:
    (images / "elm" / "0.png").rename(images / "elm" / "e\u0301.png")
    wanted = ["elm/é.png", *PATHS[1:]]
    (tmp_path / "tables").mkdir()
    lines = [("../trees/" + p if i % 2 else str(images / p), p[:3]) for i, p in enumerate(wanted)]
    found = read(table(tmp_path / "tables", as_csv([("path", "label"), *lines])))
    files = [file for split in found.splits.values() for file in split]
    assert len(files) == 12
    assert {file.name for file in files} == {
        *(
            "../trees/" + p if i % 2 else (images / p).as_posix()
            for i, p in enumerate(wanted[1:], 1)
        ),
        (images / "elm" / "e\u0301.png").as_posix(),
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no images: its rows are empty"),
        (b"path,label\n", "holds no images: it has a header line alone"),
        (b"PK\3\4" + bytes(40), "is a zip archive, not a table: save it as CSV, JSON Lines or Parquet"),
        (b"PAR1" + bytes(40), "is damaged or incomplete ("),
        (b'path,label\nelm/0.png,"elm\nelm/1.png,elm\n', "line 2 cannot be read (unexpected end"),
        (b"path,label\nelm/0.png,\xe9lan\n", "is not text in UTF-8 (byte 22 is 0xe9)"),
        (b'{"path": "elm/0.png"}\n{"path": 3]\n', "line 2 is not a JSON object"),
        (b'{"path": "elm/0.png", "label": ["a"]}\n', "line 1, column 'label': the label must be a text"),
    ],
)  # fmt: skip
def test_files_that_are_no_tables(images: Path, content: bytes, message: str) -> None:
    path = images / "labels"
    path.write_bytes(content)
    assert message in refusal(path)
    assert "no such file" in refusal(images / "none.csv")
    assert "no such folder" in refusal(path, folder=images / "none")


def test_groups_are_held_out_whole(images: Path) -> None:
    lines = [(p, c, f"plant {i // 2}") for i, (p, c) in enumerate(rows())]
    listing = read(table(images, as_csv([("path", "label", "Group ID"), *lines])))
    sides = [{file.group for file in listing.splits[split]} for split in ("train", "test")]
    assert not sides[0] & sides[1]
    assert sides[0] | sides[1] == {f"plant {i}" for i in range(6)}
    assert {file.label for file in listing.splits["test"]} == {0, 1}
    split = ["train", "test"] * 6
    more = [(*line, split[i]) for i, line in enumerate(lines)]
    listing = read(table(images, as_csv([("path", "label", "group", "split"), *more])))
    assert any(note.startswith("6 groups in several splits; accuracies") for note in listing.notes)


@pytest.mark.parametrize("columns", ["path", "path=1,path=2", "label=", "size=3", "path=1,2", "=1"])
def test_columns_that_are_refused_at_once(columns: str) -> None:
    config = Config()
    config.data.name, config.data.table, config.data.table_columns = "folder", "x.csv", columns
    with pytest.raises(
        UserError, match=r"--config\.data\.table_columns=.*must be empty or a list of"
    ):
        validate(config)

"""What the rows of a table say of its images, and what is wrong with them."""

import dataclasses
import os
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgr_jax.data.image_files import as_text
from fgr_jax.data.images.kinds import SUFFIXES
from fgr_jax.data.prepare.listing import counted, raise_if_any
from fgr_jax.data.sets.layout import split_named
from fgr_jax.data.sets.table_columns import find_columns
from fgr_jax.data.sets.table_rows import Table
from fgr_jax.errors import UserError

WAY_OUT = "nothing was prepared; correct this and run the command again"


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What a row says of an image."""

    where: str  # "labels.csv, line 7"
    path: str
    name: str
    label: str
    split: str
    group: str


def read_entries(
    table: Table, given: Mapping[str, str], folder: Path, split: str
) -> tuple[list[Entry], list[str]]:
    """Returns what the rows say, and what is wrong with them.

    With `split`, all rows belong to it.
    """
    columns, rows = find_columns(table, given)
    if not rows:
        raise UserError(f"{table.path} holds no images: it has a header line alone")
    entries, problems = [], []
    missing: list[str] = []
    unknown_splits: set[str] = set()
    width = len(table.names or table.rows[0][1])
    for number, cells in rows:
        where = table.where(number)
        if len(cells) > width and any(cells[width:]):
            problems.append(
                f"{where} has {len(cells)} cells, and line {table.rows[0][0]} has {width}: a separator "
                "within a cell needs quotation marks around the cell"
            )
            continue
        texts: dict[str, str] = {}
        for key, column in columns.items():
            text = _text(column.of(cells))
            if text is None:
                problems.append(
                    f"{where}, {column.name}: the {key} must be a text or a whole number, and is "
                    f"of type {type(column.of(cells)).__name__}"
                )
            elif not text and key != "group":
                problems.append(f"{where}, {column.name}: the {key} is empty")
            else:
                texts[key] = text
        if len(texts) < len(columns):
            continue
        of_row = split
        if "split" in columns and not split:
            of_row = split_named(texts["split"])
            if not of_row:
                if texts["split"] not in unknown_splits:
                    unknown_splits.add(texts["split"])
                    problems.append(
                        f"{where}, {columns['split'].name}: {texts['split']!r} is neither train, "
                        "validation nor test; --config.data.table_columns=split= leaves the column out"
                    )
                continue
        path = _existing(folder, texts["path"])
        if path is None:
            missing.append(
                f"{where}, {columns['path'].name}: {_why_missing(folder, texts['path'])}"
            )
            continue
        name = as_text(posixpath.normpath(path))
        full = os.path.normpath(os.path.join(folder, path))
        entries.append(Entry(where, full, name, texts["label"], of_row, texts.get("group", "")))
    if len(missing) == len(rows) > 1:
        raise UserError(
            f"{missing[0]}, and so is each of the {len(rows):,} images: name the folder that the paths "
            "are relative to, --config.data.folder=FOLDER"
        )
    return entries, [*problems, *missing]


def _text(value: Any) -> str | None:
    """Returns the text of a cell, "" if it is empty, and None if it holds neither text nor number."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # pandas turns integers into floats where some are missing
    if isinstance(value, str):
        return value.strip()
    return str(value).lower() if isinstance(value, (int, bool)) else None


def _existing(folder: Path, path: str) -> str | None:
    """Returns how a path is written for the file that it means; None if there is none.

    Separators may be those of Windows, and letters composed in another way than in the file's name.
    """
    slashes = path.replace("\\", "/")
    forms = [unicodedata.normalize(form, slashes) for form in ("NFC", "NFD")]
    for each in dict.fromkeys((path, slashes, *forms)):
        try:
            if os.path.isfile(os.path.join(folder, each)):
                return each
        except ValueError:  # a null character, or half of a surrogate pair
            continue
    return None


def _why_missing(folder: Path, path: str) -> str:
    slashes = path.replace("\\", "/")
    if "://" in path:
        return f"{path} is the address of an image: download it and name the file"
    try:
        if os.path.isdir(os.path.join(folder, slashes)):
            return f"{path} is a folder in {folder}"
        for suffix in sorted(SUFFIXES):
            if os.path.isfile(os.path.join(folder, slashes + suffix)):
                return (
                    f"{path} is missing in {folder}, but {path}{suffix} is there: write the suffix"
                )
    except ValueError:
        pass
    return f"{path} is missing" + ("" if os.path.isabs(slashes) else f" in {folder}")


def without_repetitions(entries: Sequence[Entry], what: str) -> tuple[list[Entry], list[str]]:
    """Returns one entry for each image, and a note if there were others that say the same.

    Raises:
      UserError: two rows contradict each other.
    """
    first: dict[str, Entry] = {}
    problems, repeated = [], 0
    for entry in entries:
        earlier = first.setdefault(entry.path, entry)
        if earlier is entry:
            continue
        differing = [
            f"the {key} {ours!r} instead of {theirs!r}"
            for key in ("label", "split", "group")
            if (ours := getattr(entry, key)) != (theirs := getattr(earlier, key))
        ]
        repeated += not differing
        if differing:
            problems.append(
                f"{entry.where}: {entry.name} has {' and '.join(differing)} of {earlier.where}"
            )
    raise_if_any(problems, what, WAY_OUT)
    rows = f"{counted(repeated, 'row')} {'repeats' if repeated == 1 else 'repeat'} an earlier one"
    return list(first.values()), [f"{rows}; each image is used once"] if repeated else []

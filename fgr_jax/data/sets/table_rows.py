"""The rows of a table file, with the line of each: CSV, JSON Lines or Parquet, as its bytes say."""

import csv
import dataclasses
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fgr_jax.data.images.kinds import identify
from fgr_jax.data.prepare.listing import read_text
from fgr_jax.errors import UserError
from fgr_jax.files.local import no_such

_PARQUET = b"PAR1"
_BEGINNING = 4096  # bytes
_TEXTS = frozenset({"empty", "a text file", "a JSON document", "a file of an unknown kind"})
_SEPARATORS = ",;\t|"
_SAMPLE = 100  # lines that decide about the separator
_LARGEST_CELL = 1 << 20  # characters; what is larger follows a quotation mark that is not closed


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """The rows of a table.

    Attributes:
      path: the file.
      names: the names of its columns; None for a text, whose first row may hold them.
      rows: the number of the line or row, from 1, and the cells of each row that is not empty.
      unit: what is numbered: "line", or "row" in a Parquet file.
    """

    path: Path
    names: Sequence[str] | None
    rows: Sequence[tuple[int, Sequence[Any]]]
    unit: str = "line"

    def where(self, number: int) -> str:
        """Returns where a row is, for messages: "labels.csv, line 7"."""
        return f"{self.path}, {self.unit} {number:,}"


def read_table(path: Path) -> Table:
    """Reads a table. In CSV, cells are separated by commas, semicolons, tabs or vertical bars.

    Raises:
      UserError: the file is missing, damaged or of another kind.
    """
    if not path.is_file():
        what = "is a folder: name the table in it" if path.is_dir() else no_such("file", path)
        raise UserError(f"--config.data.table={path}: {what}")
    try:
        with path.open("rb") as file:
            beginning = file.read(_BEGINNING)
    except OSError as error:
        raise UserError(f"--config.data.table={path}: cannot be read ({error.strerror})") from error
    if beginning.startswith(_PARQUET):
        return _read_parquet(path)
    kind = identify(beginning)
    if kind.name not in _TEXTS and b"\0" in beginning:
        raise UserError(
            f"{path} is {kind.name}, not a table: save it as CSV, JSON Lines or Parquet"
        )
    text = read_text(path)
    is_json = path.suffix.lower() in (".json", ".jsonl", ".ndjson")
    if text.lstrip().startswith("{") or is_json:
        return _read_json_lines(path, text)
    return _read_csv(path, text)


def _read_parquet(path: Path) -> Table:
    try:
        table = pyarrow.parquet.read_table(path)
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is damaged or incomplete ({reason}): copy it again") from error
    rows = list(enumerate(zip(*columns, strict=True), start=1))
    return Table(path, table.column_names, rows, "row")


def _read_json_lines(path: Path, text: str) -> Table:
    # Not `str.splitlines`, which also splits at characters that JSON allows in strings.
    records: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            record = error
        if not isinstance(record, dict):
            raise UserError(
                f"{path}, line {number:,} is not a JSON object: a table in JSON Lines has an object in "
                'each line, such as {"path": "oak/1.jpg", "label": "oak"}'
            )
        records.append((number, record))
    names = list(dict.fromkeys(name for _, record in records for name in record))
    return Table(path, names, [(n, [record.get(name) for name in names]) for n, record in records])


def _read_csv(path: Path, text: str) -> Table:
    """Reads text with quotation marks as in RFC 4180; white space around cells is cut off."""
    beginning = "".join(itertools.islice(io.StringIO(text, newline=""), _SAMPLE))
    best, most = ",", (0, 0)
    for separator in _SEPARATORS:
        lengths = [len(cells) for _, cells in _rows(path, beginning, separator, check=False)]
        # Those of the first row count, if all rows have as many.
        score = (len(set(lengths)) == 1, lengths[0]) if lengths else (0, 0)
        if lengths and lengths[0] > 1 and score > most:
            best, most = separator, score
    return Table(path, None, _rows(path, text, best))


def _rows(
    path: Path, text: str, separator: str, *, check: bool = True
) -> list[tuple[int, list[str]]]:
    """Returns the rows with a cell that is not empty; without `check`, up to the first error."""
    previous = csv.field_size_limit(_LARGEST_CELL)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    rows: list[tuple[int, list[str]]] = []
    try:
        while True:
            number = reader.line_num + 1
            cells = next(reader, None)
            if cells is None:
                return rows
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((number, stripped))
    except csv.Error as error:
        if not check:
            return rows
        raise UserError(
            f"{path}, line {number:,} cannot be read ({error}): a cell that begins with a quotation "
            "mark must end with one, and those inside it are doubled"
        ) from error
    finally:
        csv.field_size_limit(previous)

"""JSON files, one record per line, that stay valid if the process is killed at any moment.

Every record has a "step". A run that is resumed from a checkpoint first removes the records of
later steps, since those steps are taken, and recorded, again.

A line that was not written completely is left out: the last one without a newline, as a killed process
leaves it, and one of zero bytes, as file systems leave it after a power failure. Any other line that is
no record is an error, since nobody knows what it said, unless it is among those that are removed.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fgr_jax.errors import UserError
from fgr_jax.files.atomic import atomic_write

# A field that every record of a file has, and what its value may be.
Fields = Mapping[str, type | tuple[type, ...]]

_STEP: Fields = {"step": int}
_INCOMPLETE = b"\0 \t\r\n"  # all that an incomplete line may consist of


def append(path: Path, record: dict[str, Any]) -> None:
    """Appends a record, and returns once it is on the disk.

    Raises:
      UserError: the last line is incomplete and another one damaged.
    """
    if not _ends_with_newline(path):
        cut_off_after(path, sys.maxsize)  # or the record would be joined with the incomplete line
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut_off_after(path: Path, step: int) -> None:
    """Removes the records of later steps, and incomplete lines.

    Raises:
      UserError: a line is damaged, and no record before it belongs to a later step.
    """
    kept, cut = [], False
    for line in _lines(path):
        record = line.record(_STEP)
        if isinstance(record, str):
            if not cut:
                raise line.error(path, record)
        elif record["step"] <= step:
            kept.append(json.dumps(record) + "\n")
        else:
            cut = True
    with atomic_write(path) as unfinished:
        unfinished.write_text("".join(kept), encoding="utf-8")


def read(path: Path, fields: Fields = _STEP) -> list[dict[str, Any]]:
    """Reads the records, oldest first, without incomplete lines.

    Raises:
      UserError: a line is damaged, or lacks one of `fields`.
    """
    records = []
    for line in _lines(path):
        record = line.record({**_STEP, **fields})
        if isinstance(record, str):
            raise line.error(path, record)
        records.append(record)
    return records


class _Line(NamedTuple):
    number: int  # from 1
    text: bytes

    def record(self, fields: Fields) -> dict[str, Any] | str:
        """Returns the record, or why the line is none."""
        try:
            value = json.loads(self.text)  # which skips the byte-order mark of some editors
        except (ValueError, RecursionError):
            return "it is not JSON"
        if not isinstance(value, dict):
            return "it is not a JSON object"
        for name, kinds in fields.items():
            if not isinstance(value.get(name), kinds) or isinstance(value[name], bool):
                return f'it has no "{name}", or another value than the run wrote'
        return value

    def error(self, path: Path, why: str) -> UserError:
        return UserError(
            f"{path}, line {self.number}, is damaged ({why}): put back a copy of the file, or remove "
            "that line, and do without what it recorded"
        )


def _lines(path: Path) -> list[_Line]:
    """Returns the lines that were written completely."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    numbered = [
        _Line(number, line.strip(_INCOMPLETE)) for number, line in enumerate(lines, start=1)
    ]
    last = numbered.pop()  # complete only if an editor removed the newline
    if not isinstance(last.record(_STEP), str):
        numbered.append(last)
    return [line for line in numbered if line.text]


def _ends_with_newline(path: Path) -> bool:
    """Returns whether the last line, if any, was written completely."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"
    except OSError:  # there is no file, or it is empty
        return True

"""Which columns of a table hold the paths, labels, splits and groups: by their names, or as told."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from fgr_jax.data.sets.table_rows import Table
from fgr_jax.errors import UserError

# Names of columns, in lower case without spaces, hyphens and underscores.
_USUAL = {
    "path": frozenset(
        {
            *("path", "paths", "filepath", "imagepath", "imgpath", "relativepath"),
            *("file", "filename", "imagefile", "imagefilename", "imagename", "imgname", "fname"),
            *("image", "images", "img"),
        }
    ),
    "label": frozenset(
        {
            *("label", "labels", "labelname", "class", "classname", "classlabel"),
            *("category", "categoryname", "target", "species", "variety", "breed"),
        }
    ),
    "split": frozenset({"split", "splits", "subset", "set", "fold", "partition"}),
    "group": frozenset(
        {
            *("group", "groups", "groupid", "groupname"),
            *("objectid", "patient", "patientid", "subject", "subjectid"),
        }
    ),
}
_REQUIRED = ("path", "label")
_SHOWN = 12  # columns in a message
_LONGEST = 40  # characters of a cell in a message


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    index: int
    name: str  # in messages: "column 'species'", "column 2"

    def of(self, cells: Sequence[Any]) -> Any:
        """Returns its cell in a row; None if the row is shorter."""
        return cells[self.index] if self.index < len(cells) else None


def find_columns(
    table: Table, given: Mapping[str, str]
) -> tuple[dict[str, Column], list[tuple[int, Sequence[Any]]]]:
    """Returns the columns that hold paths, labels, splits and groups, and the rows without the header.

    The first row of a text is its header line, unless those of paths and labels are given by their
    numbers and no given column has a usual name there.

    Args:
      table: a table.
      given: names or numbers of columns, as of `config.parsed_columns`.

    Raises:
      UserError: a column is missing, or could be any of several.
    """
    rows = list(table.rows)
    if not rows:
        raise UserError(f"{table.path} holds no images: its rows are empty")
    if table.names is not None:
        return _by_name(table, table.names, given), rows
    first = [str(cell) for cell in rows[0][1]]
    named = {key: name for key, name in given.items() if name}
    if set(_REQUIRED) <= set(named) and all(name.isdecimal() for name in named.values()):
        numbers = {key: int(name) for key, name in named.items()}
        for key, number in numbers.items():
            if not 1 <= number <= len(first):
                _refuse(table, first, f"none has the number {number}", key)
        if not any(_simple(first[number - 1]) in _USUAL[key] for key, number in numbers.items()):
            # Without a header line, nothing tells where splits and groups would be.
            return {key: Column(n - 1, f"column {n}") for key, n in numbers.items()}, rows
    return _by_name(table, first, given), rows[1:]


def _by_name(table: Table, names: Sequence[str], given: Mapping[str, str]) -> dict[str, Column]:
    found = {key: _column(table, names, key, name) for key, name in given.items() if name}
    for key, usual in _USUAL.items():
        if key in given:
            continue
        matches = [index for index, name in enumerate(names) if _simple(name) in usual]
        matches = [i for i in matches if all(i != column.index for column in found.values())]
        if len(matches) == 1:
            found[key] = Column(matches[0], f"column {names[matches[0]]!r}")
        elif matches:
            either = " or ".join(repr(names[index]) for index in matches)
            _refuse(table, names, f"{either} could hold the {key}s", key)
        elif key in _REQUIRED:
            _refuse(table, names, f"none is called like a {key}", key)
    return found


def _column(table: Table, names: Sequence[str], key: str, name: str) -> Column:
    """Returns the column of the given name or number."""
    exact = [index for index, each in enumerate(names) if each == name]
    matches = exact or [i for i, each in enumerate(names) if _simple(each) == _simple(name)]
    if not matches and name.isdecimal() and 1 <= int(name) <= len(names):
        return Column(int(name) - 1, f"column {int(name)}")
    if len(matches) != 1:
        what = "is the name of several" if matches else "is none of them"
        _refuse(table, names, f"{name!r} {what}", key)
    return Column(matches[0], f"column {names[matches[0]]!r}")


def _refuse(table: Table, names: Sequence[str], what: str, key: str) -> NoReturn:
    """Raises an error that lists the columns and says which field names them."""
    shown = [repr(name if len(name) <= _LONGEST else name[:_LONGEST] + "…") for name in names]
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    ways = f"--config.data.table_columns={key}=NAME"
    if key in _REQUIRED:
        ways = "--config.data.table_columns=path=NAME,label=NAME"
    if table.names is None:
        ways += ", or numbers (path=1,label=2) if the table has no header line"
    raise UserError(
        f"{table.path} has the columns {', '.join(shown[:_SHOWN])}{more}, and {what}: name them with "
        f"{ways}"
    )


def _simple(name: str) -> str:
    return re.sub(r"[\s_-]+", "", str(name)).casefold()

"""What a data set consists of, as its annotations tell it, before a picture is read."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fgr_jax.errors import UserError

# Deeper than any official archive puts its annotations.
_DEEPEST = 4


class Picture(NamedTuple):
    """A picture and what is known of it."""

    path: str
    label: int  # an index into `Listing.class_names`
    name: str  # unique within its split, with forward slashes
    extra: Mapping[str, Any] | None = None  # values of `PictureBuilder.EXTRA_FEATURES`


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """All pictures of a data set, in the order in which they are stored."""

    class_names: Sequence[str]
    splits: Mapping[str, Sequence[Picture]]  # "train", "test"


class Problems:
    """Collects what is wrong with a data set, so that all of it can be told at once."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, problem: str) -> None:
        """Notes one."""
        self._found.append(problem)

    def raise_if_any(self, what: str, way_out: str) -> None:
        """Raises a UserError with all problems, a line each, if there are any."""
        if self._found:
            number = len(self._found)
            heading = f"{what}: {number} {'problem' if number == 1 else 'problems'}"
            raise UserError("\n  ".join([f"{heading}; {way_out}", *self._found]))


def check(listing: Listing, what: str) -> int:
    """Checks that the listing can be learned from and that its pictures are there.

    Returns:
      The size of all pictures, in bytes.

    Raises:
      UserError: naming every picture that is missing or empty, every name that stands twice, every
        class without training pictures, every split without pictures.
    """
    problems = Problems()
    total_bytes = 0
    if len(listing.class_names) < 2:
        names = ", ".join(map(repr, listing.class_names)) or "none"
        problems.add(f"there must be at least two classes to tell apart, and there is {names}")
    for name in _repeated(listing.class_names):
        problems.add(f"the class {name!r} stands twice in the list of classes")
    for split, pictures in listing.splits.items():
        if not pictures:
            problems.add(f"the split {split} has no pictures")
        for name in _repeated(picture.name for picture in pictures):
            problems.add(f"{split}: {name} stands twice in the list")
        for picture in pictures:
            try:
                size = os.stat(picture.path).st_size
            except FileNotFoundError:
                problems.add(f"{split}: {picture.name} is in the list and not in the folder")
                continue
            if size == 0:
                problems.add(f"{split}: {picture.name} is empty")
            total_bytes += size
    present = {picture.label for picture in listing.splits.get("train", ())}
    for label, name in enumerate(listing.class_names):
        if label not in present:
            problems.add(f"the class {name!r} has no training pictures")
    problems.raise_if_any(what, "nothing was prepared; put that right and run the command again")
    return total_bytes


def _repeated(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    repeated: list[str] = []
    for name in names:
        if name in seen:
            repeated.append(name)
        seen.add(name)
    return repeated


class LayoutNotFoundError(UserError):
    """A folder does not hold what it was said to hold."""


def find(root: Path, *wanted: str, kind: Callable[[Path], bool] = Path.is_file) -> Path:
    """The file `wanted`, or the first of several that is found, in `root` or not far below it.

    Raises:
      LayoutNotFoundError: there is none.
    """
    for name in wanted:
        for depth in range(_DEEPEST):
            for candidate in sorted(root.glob("*/" * depth + name)):
                if kind(candidate):
                    return candidate
    raise LayoutNotFoundError(f"{root} holds no {' and no '.join(wanted)}")


def find_folder(root: Path, *wanted: str) -> Path:
    """`find` for a folder."""
    return find(root, *wanted, kind=Path.is_dir)


def read_lines(path: Path, fields: int) -> list[list[str]]:
    """The lines of an annotation file, split at blanks into `fields` parts, the last with its blanks.

    Raises:
      UserError: the file is not there; or naming the file and the line that has fewer.
    """
    if not path.is_file():
        raise UserError(f"{path} is not there: the archive is not complete")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        row = line.strip().split(maxsplit=fields - 1)
        if len(row) < fields:
            raise UserError(
                f"{path}, line {number}: {line!r} has not the {fields} fields it should"
            )
        rows.append(row)
    return rows


@contextlib.contextmanager
def reading_matlab(path: Path) -> Iterator[None]:
    """Raises a UserError for whatever scipy and NumPy raise over a damaged MATLAB file."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        raise UserError(
            f"{path} is damaged, or lacks something ({error}): bring it again"
        ) from error


def from_one(index: str | int, count: int, where: str) -> int:
    """A one-based index of an annotation file, from 0.

    Raises:
      UserError: it is not in 1..count.
    """
    try:
        value = int(index)
    except ValueError:
        value = 0
    if not 1 <= value <= count:
        raise UserError(f"{where}: the label {index} is out of range, 1 to {count}")
    return value - 1

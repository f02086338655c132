"""Name, label, group and digest of every image of a prepared data set, without its images.

They are read from the records once, and kept in a file beside these.
"""

import contextlib
import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import pyarrow
import pyarrow.parquet

from fgr_jax.data.prepare.contents import digest_of
from fgr_jax.data.prepare.prepared import Prepared, Records, group_of, map_records
from fgr_jax.files.atomic import atomic_write
from fgr_jax.terminal import Terminal

_FILE = "index.parquet"
_CONTENT = b"content"  # in the file's metadata: the digest of the data set's content


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """The N images of one or several splits, in the order of their records."""

    names: list[str] = dataclasses.field(default_factory=list)
    labels: list[int] = dataclasses.field(default_factory=list)
    groups: list[str] = dataclasses.field(default_factory=list)  # "" for an image in no group
    digests: list[bytes] = dataclasses.field(default_factory=list)  # of the encoded images

    def add(self, name: str, label: int, group: str, digest: bytes) -> None:
        """Adds the next image."""
        self.names.append(name)
        self.labels.append(label)
        self.groups.append(group)
        self.digests.append(digest)

    def at(self, rows: Iterable[int]) -> "Index":
        """Returns the images of some rows."""
        rows = list(rows)
        return Index(*([column[row] for row in rows] for column in _columns(self)))


def joined(parts: Iterable[Index]) -> Index:
    """Returns the images of all parts."""
    columns = zip(*map(_columns, parts), strict=True)
    return Index(*(list(itertools.chain(*each)) for each in columns))


def _columns(index: Index) -> list[list[Any]]:
    return [getattr(index, name) for name in _NAMES]


_NAMES = [field.name for field in dataclasses.fields(Index)]


def read_index(prepared: Prepared, terminal: Terminal) -> dict[str, Index]:
    """Returns the images of each split."""
    found = _stored(prepared)
    if found is None:
        found = {split: Index() for split in prepared.builder.info.splits}
        for split, image in map_records(_image, prepared, "indexing", terminal):
            found[split].add(*image)
        _store(prepared, found)
    return found


def _image(records: Records, index: int) -> tuple[str, int, str, bytes]:
    record = records[index]
    encoded = record["image"].bytes_list.value[0]
    label = record["label"].int64_list.value[0]
    return records.file_name(record, index), label, group_of(record), digest_of(encoded)


def _stored(prepared: Prepared) -> dict[str, Index] | None:
    """Reads the file; returns None if it is missing, damaged or of another content."""
    try:
        table = pyarrow.parquet.read_table(prepared.folder / _FILE)
        if (table.schema.metadata or {}).get(_CONTENT) != prepared.contents.digest.encode():
            return None
        rows = [table.column(name).to_pylist() for name in ("split", *_NAMES)]
    except (OSError, KeyError, pyarrow.ArrowException):
        return None
    found = {split: Index() for split in prepared.builder.info.splits}
    for split, *image in zip(*rows, strict=True):
        if split not in found:
            return None
        found[split].add(*image)
    counts = {split: each.num_examples for split, each in prepared.builder.info.splits.items()}
    is_whole = all(len(found[split].names) == count for split, count in counts.items())
    return found if is_whole else None


def _store(prepared: Prepared, found: dict[str, Index]) -> None:
    """Writes the file if the folder can be written to."""
    columns: dict[str, list[Any]] = {
        "split": [split for split, each in found.items() for _ in each.names]
    }
    for name in _NAMES:
        columns[name] = [value for each in found.values() for value in getattr(each, name)]
    table = pyarrow.table(columns)
    table = table.replace_schema_metadata({_CONTENT: prepared.contents.digest.encode()})
    with contextlib.suppress(OSError), atomic_write(prepared.folder / _FILE) as unfinished:
        pyarrow.parquet.write_table(table, unfinished)

"""A folder of features: shards in NumPy's format, each with a record of its digests and labels.

A file is written under another name, brought to the disk and renamed, and the record of a shard is
written last. So a process that is killed at any moment loses at most its last shard.
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from fgr_jax.errors import UserError
from fgr_jax.features.description import Description
from fgr_jax.files.atomic import atomic_write

DESCRIPTION = "description.json"
LOCK = "lock"  # held by the process that writes there
_THREADS = 4
_BFLOAT16 = "bfloat16"  # NumPy's format has no name for it, so its bits are stored as uint16


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """The features of consecutive images, in memory or mapped.

    Attributes:
      leaves: arrays `[N, V, ...]` for N images and V views of each.
      label: int32 `[N]`.
      mask: bool `[N]`, false for corrupt images that are skipped.
    """

    leaves: Sequence[npt.NDArray[Any]]
    label: npt.NDArray[np.int32]
    mask: npt.NDArray[np.bool_]


class DamagedError(UserError):
    """A file of features is not what was written."""


@dataclasses.dataclass(frozen=True, slots=True)
class Store:
    """The folder of the features that `description` describes; it need not exist."""

    folder: Path
    description: Description

    def missing(self) -> list[int]:
        """Returns the numbers of the shards that are not there."""
        return [
            number
            for number in range(len(self.description.shards))
            if not all(path.exists() for path in (self._record(number), *self._files(number)))
        ]

    def write_description(self) -> None:
        """Writes what the features depend on, for readers; the folder must exist."""
        about = {"data_set": self.description.data_set, **self.description.to_json()}
        with _durable(self.folder / DESCRIPTION) as file:
            file.write(json.dumps(about, indent=2, ensure_ascii=False).encode() + b"\n")

    def check_description(self) -> None:
        """Checks that the folder is that of these features.

        Raises:
          DamagedError: it is another one, or its description is damaged.
        """
        path = self.folder / DESCRIPTION
        try:
            about = json.loads(path.read_bytes())
            del about["data_set"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, "that folder") from error
        if about != self.description.to_json():
            raise _damaged(path, "that folder")

    def write(self, number: int, shard: Shard) -> None:
        """Writes a shard, and returns once it is on the disk."""
        digests = {}
        for path, leaf in zip(self._files(number), shard.leaves, strict=True):
            with _durable(path) as file:
                hashing = _Hashing(file)
                bits = leaf.view(np.uint16) if leaf.dtype == jnp.bfloat16 else leaf
                np.save(hashing, bits)
                digests[path.name] = hashing.hexdigest()
        record = {
            "labels": shard.label.tolist(),
            "skipped": np.flatnonzero(~shard.mask).tolist(),
            "sha256": digests,
        }
        with _durable(self._record(number)) as file:
            file.write(json.dumps({**record, "record": _digest_of(record)}).encode() + b"\n")

    def open(self, number: int) -> Shard:
        """Maps a shard into memory.

        Raises:
          DamagedError: its record is not what was written, or a file has another shape or dtype.
        """
        record = self._read_record(number)
        label = np.array(record["labels"], np.int32)
        mask = np.ones(len(label), np.bool_)
        mask[record["skipped"]] = False
        leaves, about = [], self.description
        for path, shape, kind in zip(self._files(number), about.shapes, about.dtypes, strict=True):
            try:
                leaf = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise _damaged(path) from error
            stored = "uint16" if kind == _BFLOAT16 else kind
            if (leaf.shape, leaf.dtype) != ((len(label), about.views, *shape), np.dtype(stored)):
                raise _damaged(path)
            leaves.append(leaf.view(jnp.bfloat16) if kind == _BFLOAT16 else leaf)
        return Shard(leaves, label, mask)

    def check(self, number: int) -> None:
        """Reads the files of a shard and compares their digests.

        Raises:
          DamagedError: one is not what was written.
        """
        digests = self._read_record(number)["sha256"]
        for path in self._files(number):
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                raise _damaged(path) from error
            if digest != digests.get(path.name):
                raise _damaged(path)

    def _read_record(self, number: int) -> dict[str, Any]:
        path = self._record(number)
        try:
            record = json.loads(path.read_bytes())
            digest = record.pop("record")
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise _damaged(path) from error
        if digest != _digest_of(record) or len(record["labels"]) != len(
            self.description.shards[number]
        ):
            raise _damaged(path)
        return dict(record)

    def _record(self, number: int) -> Path:
        return self.folder / f"{number:05}.json"

    def _files(self, number: int) -> list[Path]:
        leaves = range(len(self.description.shapes))
        return [self.folder / f"{number:05}-{leaf}.npy" for leaf in leaves]


class Writer:
    """Writes shards in a thread, one at a time, as a context manager."""

    def __init__(self, store: Store):
        self._store = store
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._pending: concurrent.futures.Future[None] | None = None

    def write(self, number: int, shard: Shard) -> None:
        """Starts writing a shard, once the one before is written."""
        self.wait()
        self._pending = self._pool.submit(self._store.write, number, shard)

    def wait(self) -> None:
        """Waits until the shard that was started is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        self._pool.shutdown(wait=kind is None)


def try_lock(folder: Path) -> int | None:
    """Locks a folder for this process alone, until the descriptor that it returns is closed.

    Returns:
      The descriptor, or None if another process holds the lock, or has just removed the folder.
    """
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def remove(folder: Path) -> None:
    """Removes a folder of features.

    Raises:
      UserError: a process is writing there.
    """
    lock = try_lock(folder)
    if lock is None:
        raise UserError(f"{folder}: a process is computing these features; stop it first")
    try:
        shutil.rmtree(folder)
    finally:
        os.close(lock)


class _Hashing:
    """A file that computes the digest of what is written to it."""

    def __init__(self, file: IO[bytes]):
        self._file, self._digest = file, hashlib.sha256()

    def write(self, content: Any) -> int:
        self._digest.update(content)
        return self._file.write(content)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _digest_of(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _damaged(path: Path, removed: str = "that file") -> DamagedError:
    return DamagedError(
        f"{path} is damaged: remove {removed}, and the same command computes the features again"
    )


@contextlib.contextmanager
def _durable(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file to write, which is on the disk, completely or not at all, when the context ends."""
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name
    finally:
        os.close(folder)

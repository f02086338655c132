"""The folder of a run: the names of its files, which run owns it, and where it is.

It is on this machine, or in a bucket, with its small files copied here.
"""

import dataclasses
import fcntl
import hashlib
import json
import os
import re
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

from fgr_jax.data.identity import DataIdentity
from fgr_jax.errors import UserError
from fgr_jax.files import buckets
from fgr_jax.files.atomic import atomic_write
from fgr_jax.files.local import local_path, no_such
from fgr_jax.runs.checkpoints import latest_step
from fgr_jax.runs.description import Description

_Parsed = TypeVar("_Parsed")
_SCHEME = re.compile("[a-z][a-z0-9+.-]*://")

CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
PREDICTIONS = "test_predictions.csv"
TENSORBOARD = "tensorboard"
FINGERPRINTS = "fingerprints.jsonl"
CONFIG = "config.json"
CLASSES = "classes.json"
DATA = "data.json"
PROVENANCE = "provenance.jsonl"
REPORT = "report.html"
COMPARISON = "comparison.html"
LABEL_ISSUES = "label_issues.csv"
EVALUATION = "evaluation"
EXPORT = "export"
LOCK = "lock"  # held by the process that trains there

_NAMES_DIGEST = "class_names"  # in data.json


@dataclasses.dataclass(frozen=True, slots=True)
class Workdir:
    """Where the files of a run are.

    Buckets do not support appending, so a run in a bucket writes its small files to a temporary folder,
    and `publish` copies those that have changed to the bucket.
    """

    name: str  # as given by the user
    flag: str  # the flag of this name, for errors; empty for an argument without a flag
    local: Path  # folder of the small files
    checkpoints: epath.Path  # in the bucket, if there is one
    _remote: epath.Path | None = None
    _published: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, name: str | Path, *, flag: str = "--workdir") -> "Workdir":
        """Opens the folder `name`, which need not exist.

        Args:
          name: a folder, or gs://BUCKET/FOLDER.
          flag: the flag that it was given with, for errors.

        Raises:
          UserError: it is in a bucket that cannot be reached, or another URL.
        """
        name = str(name)
        if not buckets.is_in_bucket(name):
            scheme = _SCHEME.match(name)
            if scheme:
                raise UserError(
                    f"{flag}={name}: {scheme.group()} is not supported; name a folder, or "
                    "gs://BUCKET/FOLDER"
                )
            local = local_path(name, flag)
            return cls(name, flag, local, epath.Path(local.absolute()) / CHECKPOINTS)
        remote = buckets.open_folder(name, flag)
        local = Path(tempfile.mkdtemp(prefix="fgr_jax-"))
        folder = cls(name, flag, local, remote / CHECKPOINTS, remote)
        if remote.exists():
            for path in remote.iterdir():
                if not path.is_dir():
                    path.copy(local / path.name)
        # A reader of the run must not overwrite files that its job has replaced since.
        folder._published.update(folder._states())
        return folder

    def __str__(self) -> str:
        """Names the folder in errors: "--workdir=runs/cub"."""
        return f"{self.flag}={self.name}" if self.flag else self.name

    def evaluation(self, step: int, crops: str) -> "Workdir":
        """Opens the folder for an evaluation of the checkpoint of `step`.

        It is a separate `Workdir`, so that publishing it does not touch the run's other files, of which
        the bucket may have newer versions.
        """
        return Workdir.open(f"{self.name}/{EVALUATION}/step-{step}-{crops}")

    def exports(self) -> "Workdir":
        """Opens the folder for exported files; it is a separate `Workdir`, too."""
        return Workdir.open(f"{self.name}/{EXPORT}")

    def publish(self) -> None:
        """Copies files that have changed since the last call to the bucket; no-op for local folders."""
        if self._remote is None:
            return
        for relative, state in self._states().items():
            if self._published.get(relative) != state:
                epath.Path(self.local / relative).copy(self._remote / relative, overwrite=True)
                self._published[relative] = state

    def _states(self) -> dict[str, tuple[int, int]]:
        """Returns size and modification time (ns) of every small file, by relative path."""
        states = {}
        for path in sorted(self.local.rglob("*")):
            relative = path.relative_to(self.local).as_posix()
            if path.is_file() and relative != LOCK:
                status = path.stat()
                states[relative] = (status.st_size, status.st_mtime_ns)
        return states

    def read(self) -> Description:
        """Reads the description of the run.

        Raises:
          UserError: there is no run, or a file is missing or damaged.
        """
        if not self.local.is_dir():
            raise UserError(f"{self}: {no_such('folder', self.local)}; name the workdir of a run")
        if not (self.local / CONFIG).is_file():
            raise UserError(f"{self} is no workdir of a run: it has no {CONFIG}")
        run = Description(
            config=self._read_json(CONFIG, _parse_fields),
            data=self._read_json(DATA, DataIdentity.from_json),
            class_names=self._read_json(CLASSES, _parse_names),
        )
        if self._read_json(DATA, _parse_digest) not in ("", _digest_of(run.class_names)):
            raise UserError(
                f"{self}: {CLASSES} does not hold the names of the classes that the run was trained on, "
                f"whose digest is in {DATA}: put back the files that the run wrote"
            )
        return run

    def _read_json(self, name: str, parse: Callable[[Any], _Parsed]) -> _Parsed:
        try:
            text = (self.local / name).read_text(encoding="utf-8-sig")  # editors add a mark
            return parse(json.loads(text))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{self}: {name} cannot be read ({error}): it describes the run; put back the file that "
                "the run wrote, or use another folder"
            ) from error

    def recorded(self) -> Description | None:
        """Returns the description of the run that has saved a checkpoint there, if there is one.

        Raises:
          UserError: a file is missing or damaged.
        """
        if not (self.local / CONFIG).exists() or latest_step(self.checkpoints) is None:
            return None
        return self.read()

    def check(self, run: Description, recorded: Description | None = None) -> None:
        """Checks that `run` may use the folder, without writing anything.

        It may if no run has saved a checkpoint there, or if that run is the same run.

        Args:
          run: a run.
          recorded: what `recorded` returns, where more is known of its data; None: it is read.

        Raises:
          UserError: it belongs to another run, or is a file.
        """
        if self.local.exists() and not self.local.is_dir():
            raise UserError(f"{self}: is a file; name a folder")
        recorded = recorded or self.recorded()
        differences = [] if recorded is None else recorded.differences(run)
        if differences:
            raise UserError(
                f"{self} belongs to a run with another config, and was left alone. Differing: "
                f"{'; '.join(differences)}. Use another {self.flag}"
            )

    def claim(self, run: Description) -> None:
        """Writes the description of `run`, after `check`, and locks the folder until the process ends.

        A folder in a bucket cannot be locked: two simultaneous runs in it are not detected.

        Raises:
          UserError: the folder cannot be created, or another process is training there.
        """
        try:
            self.local.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.local / LOCK, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UserError(f"{self}: cannot be created: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends
        except OSError as error:
            raise UserError(
                f"{self}: another process is training there; wait for it, or use another {self.flag}"
            ) from error
        _write_json(self.local / CLASSES, run.class_names)
        _write_json(
            self.local / DATA,
            {**run.data.to_json(), _NAMES_DIGEST: _digest_of(run.class_names), **run.contents},
        )
        _write_json(self.local / CONFIG, run.config)

    def is_claimed(self) -> bool:
        """Returns whether a process on this machine is training there; always false for a bucket."""
        try:
            lock = os.open(self.local / LOCK, os.O_RDONLY)
        except OSError:  # a copy of a workdir may have none
            return False
        try:
            # The only test is to take the lock: it is taken as shared, and released at once.
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False


def _parse_fields(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"it holds {_beginning(value)}, not the fields of a config")
    return value


def _parse_names(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        raise ValueError(f"it holds {_beginning(value)}, not the names of classes")
    return value


def _parse_digest(value: Any) -> str:
    """Returns the digest of the names of the classes, or "" if an older version did not store it."""
    return value.get(_NAMES_DIGEST, "") if isinstance(value, dict) else ""


def _digest_of(names: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16]


def _beginning(value: Any) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" …")


def _write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as unfinished:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        # JSON writes the bytes of a path that is not UTF-8 as Python's error handler does.
        unfinished.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")

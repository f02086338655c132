"""Fetching the archives that anybody may fetch: resumed after a break, and checked at the end."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import requests

from fgr_jax.errors import UserError

_CHUNK = 1 << 16
_TIMEOUT = (20, 60)  # seconds to connect, and between two pieces


@dataclasses.dataclass(frozen=True, slots=True)
class Archive:
    """A file that a data set's makers publish."""

    file_name: str
    url: str = ""  # empty: no open link
    size: int = 0  # bytes; 0: not known
    checksum: str = ""  # "sha256:…"; "md5:…" where the makers publish no other

    def is_sound(self, path: Path) -> bool:
        """Whether the file at `path` is this one."""
        if self.size and path.stat().st_size != self.size:
            return False
        if not self.checksum:
            return True
        algorithm, _, expected = self.checksum.partition(":")
        digest = hashlib.new(algorithm)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == expected


def fetch(archive: Archive, folder: Path, progress: Callable[[int], None]) -> Path:
    """Downloads `archive` into `folder`; what an earlier attempt has left is gone on with.

    Args:
      archive: one with a link.
      folder: where to.
      progress: called with the number of bytes that are there.

    Raises:
      UserError: the server cannot be reached, breaks off, or sends something else.
    """
    target = folder / archive.file_name
    unfinished = folder / (archive.file_name + ".unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    by_hand = (
        f"fetch {archive.url} with another tool and name the file: --source={archive.file_name}"
    )
    try:
        _receive(archive.url, unfinished, progress)
    except requests.RequestException as error:
        reason = type(error).__name__ if error.response is None else str(error)
        kept = unfinished.stat().st_size if unfinished.exists() else 0
        raise UserError(
            f"{archive.url} cannot be fetched ({reason}); {kept >> 20} MiB are kept, and the same "
            f"command goes on from there. Or {by_hand}"
        ) from error
    if not archive.is_sound(unfinished):
        size = unfinished.stat().st_size
        unfinished.unlink()
        raise UserError(
            f"{archive.url} has sent {size:,} bytes that are not {archive.file_name} (its checksum is "
            f"another): run the command again, or {by_hand}"
        )
    unfinished.replace(target)
    return target


def _receive(url: str, path: Path, progress: Callable[[int], None]) -> None:
    have = path.stat().st_size if path.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it is there
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        with path.open("ab" if resumed else "wb") as file:
            if not resumed:
                have = 0
            length = response.headers.get("Content-Length")
            expected = have + int(length) if length else None
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress(have)
            file.flush()
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())
    if expected is not None and have < expected:
        raise requests.ConnectionError("the connection was closed early")

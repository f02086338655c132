"""Downloads publicly available archives; interrupted downloads resume, complete ones are verified."""

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import requests

from fgr_jax.errors import UserError

_CHUNK = 1 << 16
_TIMEOUT = (20, 60)  # seconds to connect, and between two chunks


@dataclasses.dataclass(frozen=True, slots=True)
class Archive:
    """A file that the authors of a data set publish."""

    file_name: str
    url: str = ""  # empty: not publicly available
    size: int = 0  # in bytes; 0: unknown
    checksum: str = ""  # "sha256:…"; "md5:…" where the authors publish no other

    def is_sound(self, path: Path) -> bool:
        """Returns whether the file at `path` has this size and checksum."""
        if self.size and path.stat().st_size != self.size:
            return False
        if not self.checksum:
            return True
        algorithm, _, expected = self.checksum.partition(":")
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest() == expected


def download(archive: Archive, folder: Path, progress: Callable[[int], None]) -> Path:
    """Downloads `archive` into `folder` and returns its path, resuming an interrupted download.

    Args:
      archive: one with a URL.
      folder: the folder to download into; it is created.
      progress: called with the number of bytes received so far.

    Raises:
      UserError: the server cannot be reached, the connection breaks, or the checksum differs.
    """
    target = folder / archive.file_name
    unfinished = folder / (archive.file_name + ".unfinished")
    folder.mkdir(parents=True, exist_ok=True)
    by_hand = f"download {archive.url} with another tool and pass it with --source={target.name}"
    try:
        _receive(archive.url, unfinished, progress)
    except requests.RequestException as error:
        reason = type(error).__name__ if error.response is None else str(error)
        kept = unfinished.stat().st_size if unfinished.exists() else 0
        raise UserError(
            f"{archive.url} cannot be downloaded ({reason}); {kept >> 20} MiB are kept, and the same "
            f"command resumes from there. Or {by_hand}"
        ) from error
    if not archive.is_sound(unfinished):
        size = unfinished.stat().st_size
        unfinished.unlink()
        raise UserError(
            f"{archive.url} sent {size:,} bytes that are not {target.name} (the checksum differs): run "
            f"the command again, or {by_hand}"
        )
    unfinished.replace(target)
    return target


def _receive(url: str, path: Path, progress: Callable[[int], None]) -> None:
    have = path.stat().st_size if path.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # the file is complete
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        with path.open("ab" if resumed else "wb") as file:
            have = have if resumed else 0
            expected = have + int(response.headers.get("Content-Length", 0))
            for chunk in response.iter_content(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                progress(have)
            file.flush()
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())
    if have < expected:
        raise requests.ConnectionError("the connection was closed early")

"""Unpacks archives from elsewhere, without trusting their contents."""

import errno
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fgr_jax.errors import UserError

# Photographs hardly compress. An archive that grows beyond both limits is not a data set.
_MOST_GROWTH = 20
_HARMLESS_BYTES = 100 << 20
_CHUNK = 1 << 20
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)


def is_archive(path: Path) -> bool:
    """Returns whether the file name has the suffix of an archive."""
    return bool(re.search(r"\.(tar|tgz|tar\.gz|tar\.bz2|tar\.xz|zip)$", path.name))


def unpack(archive: Path, folder: Path, progress: Callable[[int], None]) -> None:
    """Unpacks a tar or zip archive into `folder`, and a tar inside it into a folder of its name.

    Args:
      folder: the folder to unpack into; it is created.
      progress: called with the number of bytes written so far.

    Raises:
      UserError: the archive is damaged, names files outside the folder, contains links or devices, or
        would unpack to more than any data set.
    """
    limit = max(_MOST_GROWTH * archive.stat().st_size, _HARMLESS_BYTES)
    written = 0
    try:
        for name, size, content in _members(archive):
            target = folder / _safe(name, archive)
            if written + size > limit:
                raise UserError(
                    f"{archive} unpacks to more than {limit >> 20:,} MiB, {_MOST_GROWTH} times its own "
                    "size: it is not an archive of images; download it again from its source"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while chunk := content.read(_CHUNK):
                    file.write(chunk)
                    written += len(chunk)
                    progress(written)
            if target.stat().st_size != size:
                raise EOFError(f"{name} ends early")
    except (*_DAMAGED, OSError) as error:
        # gzip's and bz2's errors have no number; a file in the place of a folder has ENOTDIR.
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOTDIR):
            raise
        reason = str(error).partition("\n")[0].rstrip(":")
        raise UserError(
            f"{archive} is damaged or truncated ({reason}): delete it and download it again"
        ) from error


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yields name, size and content of every file, in the archive's order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if (info.external_attr >> 28) == 0o12:  # the upper bits hold the Unix mode
                    raise _unsafe(archive, info.filename, "is a link")
                if not info.is_dir():
                    yield info.filename, info.file_size, opened.open(info)
        return
    with tarfile.open(archive, "r:*") as opened:
        yield from _tar_members(opened, archive)
        raw = opened.fileobj
        if raw is None or raw.tell() < opened.offset + tarfile.BLOCKSIZE:
            raise EOFError("it has no end marker")  # which tarfile itself accepts
        while raw.read(_CHUNK):
            pass  # to the end, where a compressed file has its checksum


def _tar_members(opened: tarfile.TarFile, archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    for member in opened:
        content = opened.extractfile(member) if member.isfile() else None
        if member.isdir():
            _safe(member.name, archive)
        elif content is None:
            raise _unsafe(archive, member.name, "is a link or a device")
        elif not member.name.endswith(".tar"):
            yield member.name, member.size, content
        else:
            with tarfile.open(fileobj=content, mode="r|") as inner:
                for name, size, file in _tar_members(inner, archive):
                    inner_name = _safe(name, archive)
                    yield f"{member.name.removesuffix('.tar')}/{inner_name}", size, file


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise _unsafe(archive, name, "lies outside the folder")
    return path


def _unsafe(archive: Path, name: str, what: str) -> UserError:
    return UserError(
        f"{archive}: its member {name!r} {what}; nothing of it is used. Download it from its source"
    )

"""Unpacking archives that somebody else has made."""

import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fgr_jax.errors import UserError

# Photographs do not shrink in an archive. What grows beyond both limits is no data set.
_MOST_GROWTH = 20
_HARMLESS_BYTES = 100 << 20
_CHUNK = 1 << 20
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,
    NotADirectoryError,
)
_SUFFIXES = re.compile(r"\.(tar|tgz|tar\.gz|tar\.bz2|tar\.xz|zip)$")


def is_archive(path: Path) -> bool:
    """By its name."""
    return bool(_SUFFIXES.search(path.name))


def unpack(archive: Path, folder: Path, progress: Callable[[int], None]) -> None:
    """Unpacks a tar or zip archive into `folder`; a tar inside goes into a folder of its name.

    Args:
      archive: a .tar, .tgz, .tar.gz, .tar.bz2, .tar.xz or .zip.
      folder: where to; it is made.
      progress: called with the number of bytes written so far.

    Raises:
      UserError: the archive is damaged, climbs out of the folder, holds links or devices, or would
        unpack to more than a data set can be.
    """
    limit = max(_MOST_GROWTH * archive.stat().st_size, _HARMLESS_BYTES)
    written = 0
    try:
        for name, size, content in _members(archive):
            target = folder / _safe(name, archive)
            if written + size > limit:
                raise UserError(
                    f"{archive} unpacks to more than {limit >> 20:,} MiB, {_MOST_GROWTH} times its own "
                    "size: it is no archive of pictures; bring it again from its source"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while chunk := content.read(_CHUNK):
                    file.write(chunk)
                    written += len(chunk)
                    progress(written)
            if target.stat().st_size != size:
                raise EOFError(f"{name} ends early")
    except _DAMAGED as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _damaged(archive, error) from error  # gzip's and bz2's errors have no number


def _damaged(archive: Path, error: Exception) -> UserError:
    reason = str(error).partition("\n")[0].rstrip(":")
    return UserError(f"{archive} is damaged or cut off ({reason}): delete it and bring it again")


def _members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of every file, in the archive's order."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if (info.external_attr >> 28) == 0o12:  # the upper bits are a Unix mode: a link
                    raise _unsafe(archive, info.filename, "is a link")
                if not info.is_dir():
                    yield info.filename, info.file_size, opened.open(info)
        return
    with tarfile.open(archive, "r:*") as opened:
        yield from _tar_members(opened, archive)
        raw = opened.fileobj
        if raw is None or raw.tell() < opened.offset + tarfile.BLOCKSIZE:
            raise EOFError("it has no end mark")  # tarfile itself takes that for the end
        while raw.read(_CHUNK):
            pass  # to the end, where a compressed file has its checksum


def _tar_members(opened: tarfile.TarFile, archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    for member in opened:
        if member.isdir():
            _safe(member.name, archive)
            continue
        content = opened.extractfile(member) if member.isfile() else None
        if content is None:
            raise _unsafe(archive, member.name, "is a link or a device")
        if not member.name.endswith(".tar"):
            yield member.name, member.size, content
            continue
        inner_folder = member.name.removesuffix(".tar")
        with tarfile.open(fileobj=content, mode="r|") as inner:
            for name, size, file in _tar_members(inner, archive):
                yield f"{inner_folder}/{_safe(name, archive)}", size, file


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise _unsafe(archive, name, "climbs out of its folder")
    return path


def _unsafe(archive: Path, name: str, what: str) -> UserError:
    return UserError(
        f"{archive}: its member {name!r} {what}; none of it is used. Bring it from its source"
    )

"""Unpacks archives from elsewhere, without trusting their contents."""

import dataclasses
import errno
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fgr_jax.data.images import kind_of
from fgr_jax.errors import UserError

# Photographs hardly compress. An archive that grows beyond both limits is not a data set.
_MOST_GROWTH = 20
_HARMLESS_BYTES = 100 << 20
_CHUNK = 1 << 20
_BEGINNING = 4096  # bytes
_DEEPEST = 3  # archives in archives
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError)
# gzip's and bz2's errors have no number; the others are due to names and offsets in the archive.
_FAULTS = (None, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EINVAL)

_SUFFIXES = re.compile(r"\.(tar|tgz|tar\.gz|tbz2?|tar\.bz2|txz|tar\.xz|zip)$", re.IGNORECASE)
_TARS = {f"{name} archive" for name in ("a tar", "a gzip", "a bzip2", "an xz")}
_READ = {"a zip archive", *_TARS}
_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}  # numbers in zips
_IS_UTF8 = 0x800  # a flag in zips
_WAY_OUT = "unpack it with another tool and name the folder instead"


def is_archive(path: Path) -> bool:
    """Returns whether a file is an archive, by its suffix or its first bytes, even if it is not read."""
    if _SUFFIXES.search(path.name):
        return True
    return path.is_file() and _kind_of(path).endswith(" archive")


@dataclasses.dataclass
class _Budget:
    """How much an archive and those inside it may write, and what is noted of them."""

    archive: Path
    limit: int  # bytes
    progress: Callable[[int], None]
    written: int = 0
    targets: set[Path] = dataclasses.field(default_factory=set)  # the files that are written
    guessed: list[str] = dataclasses.field(default_factory=list)  # names of unknown encodings

    def check(self, size: int) -> None:
        """Raises a UserError if a file of this size is too much."""
        if self.written + size > self.limit:
            raise UserError(
                f"{self.archive} unpacks to more than {self.limit >> 20:,} MiB, {_MOST_GROWTH} times "
                "its own size: it is not an archive of images; download it again from its source"
            )

    def add(self, size: int) -> None:
        """Counts what was written."""
        self.written += size
        self.progress(self.written)


def unpack(archive: Path, folder: Path, progress: Callable[[int], None]) -> list[str]:
    """Unpacks a tar or zip archive into `folder`, and archives inside it into folders of their names.

    Args:
      folder: the folder to unpack into; it is created.
      progress: called with the number of bytes written so far.

    Returns:
      Names of members, as they were read, whose encoding the archive does not tell.

    Raises:
      UserError: the archive is damaged, has a password or a format that is not read, names files outside
        the folder or two of one name, contains links or devices, or would unpack to more than any data
        set.
    """
    limit = max(_MOST_GROWTH * archive.stat().st_size, _HARMLESS_BYTES)
    budget = _Budget(archive, limit, progress)
    _unpack(archive, folder, str(archive), budget, depth=1)
    if not folder.exists():
        raise UserError(f"{archive} holds no files: download it again from its source")
    return budget.guessed


def _unpack(archive: Path, folder: Path, name: str, budget: _Budget, depth: int) -> None:
    """Unpacks the archive that errors call `name`; `depth` counts it and those around it."""
    _check_kind(archive, name)
    inner: list[Path] = []
    try:
        for member, size, content in _members(archive, name, budget.guessed):
            target = folder / _safe(member, name)
            if target == folder:
                raise _unsafe(name, member, "is a file without a name")
            if target in budget.targets:
                raise _unsafe(
                    name, member, f"would be the second file {target.relative_to(folder)}"
                )
            budget.targets.add(target)
            budget.check(size)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while chunk := content.read(_CHUNK):
                    file.write(chunk)
                    budget.add(len(chunk))
            if target.stat().st_size != size:
                raise EOFError(f"{member} ends early")
            if depth < _DEEPEST and _is_read(target):
                inner.append(target)
    except NotImplementedError as error:
        raise UserError(
            f"{name} is a zip archive of a kind that is not read ({error}): {_WAY_OUT}"
        ) from error
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
            raise UserError(
                f"{name} has names that are too long for this disk: {_WAY_OUT}"
            ) from error
        if isinstance(error, OSError) and error.errno not in _FAULTS:
            raise
        kind = _kind_of(archive)
        is_other = kind not in _READ and "unknown" not in kind
        reason = f"it is {kind}" if is_other else str(error).partition("\n")[0].rstrip(":")
        raise UserError(
            f"{name} is damaged or truncated ({reason}): move it away and download it again"
        ) from error
    for path in dict.fromkeys(inner):
        target = path.with_name(_SUFFIXES.sub("", path.name))
        _unpack(path, target, f"{name}, {path.relative_to(folder)}", budget, depth + 1)
        path.unlink()


def _is_read(path: Path) -> bool:
    """Returns whether a member is an archive, and not, for example, what macOS notes of one."""
    return bool(_SUFFIXES.search(path.name)) and _kind_of(path) in _READ


def _check_kind(archive: Path, name: str) -> None:
    """Raises a UserError for formats that are not read, and for a part of an archive."""
    kind = _kind_of(archive)
    if kind.endswith(" archive") and kind not in _READ:
        raise UserError(f"{name} is {kind}, which is not read: {_WAY_OUT}")
    if re.search(r"\.(z\d\d|\d{3})$", archive.name) or archive.with_suffix(".z01").exists():
        raise UserError(f"{name} is a part of a split archive: {_WAY_OUT}")


def _kind_of(path: Path) -> str:
    with path.open("rb") as file:
        return kind_of(file.read(_BEGINNING))


def _members(archive: Path, name: str, guessed: list[str]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yields name, size and content of every file, in the archive's order.

    Names in an encoding that the archive does not tell are added to `guessed`.
    """
    kind = _kind_of(archive)
    # A tar that ends with a zip has the end of one.
    if kind not in _TARS and zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            yield from _zip_members(opened, name, guessed)
        return
    if kind == "a zip archive":
        raise EOFError(
            "the list of its files, which is at its end, is missing or followed by others"
        )
    with tarfile.open(archive, "r:*") as opened:
        yield from _tar_members(opened, name)
        raw = opened.fileobj
        if raw is None or raw.tell() < opened.offset + tarfile.BLOCKSIZE:
            raise EOFError("it has no end marker")  # which tarfile itself accepts
        while raw.read(_CHUNK):
            pass  # to the end, where a compressed file has its checksum


def _zip_members(
    opened: zipfile.ZipFile, archive: str, guessed: list[str]
) -> Iterator[tuple[str, int, IO[bytes]]]:
    for info in opened.infolist():
        name = info.filename
        # Many programs write UTF-8 and do not say so. What is neither is taken as the format says.
        if not info.flag_bits & _IS_UTF8 and not name.isascii():
            try:
                name = name.encode("cp437").decode("utf-8")
            except UnicodeError:
                guessed.append(name)
        if info.flag_bits & 1:
            raise UserError(f"{archive} is protected with a password: {_WAY_OUT}")
        if (info.external_attr >> 28) == 0o12:  # the upper bits hold the Unix mode
            raise _unsafe(archive, name, "is a link")
        if name.endswith(("/", "\\")):  # a folder, the second with Windows' separator
            continue
        try:
            content = opened.open(info)
        except NotImplementedError as error:
            method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
            raise NotImplementedError(f"{name} is compressed with {method}: {error}") from error
        yield name, info.file_size, content


def _tar_members(opened: tarfile.TarFile, archive: str) -> Iterator[tuple[str, int, IO[bytes]]]:
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


def _safe(name: str, archive: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:[\\/]", name):
        raise _unsafe(archive, name, "lies outside the folder")
    return path


def _unsafe(archive: str, name: str, what: str) -> UserError:
    return UserError(
        f"{archive}: its member {name!r} {what}; nothing of it is used. Download it from its source"
    )

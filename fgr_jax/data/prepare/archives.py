"""Unpacks archives from elsewhere, without trusting their contents."""

import bz2
import dataclasses
import errno
import gzip
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

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
_COMPRESSED = {"a gzip archive", "a bzip2 archive", "an xz archive"}
_TARS = {"a tar archive", *_COMPRESSED}
_READ = {"a zip archive", *_TARS}
_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES"}  # numbers in zips
_IS_UTF8 = 0x800  # a flag in zips
_UNICODE_PATH = 0x7075  # a field in zips
_IS_FOLDER = 0x10  # an attribute of MS-DOS
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
    with _open_tar(archive, kind, name) as opened:
        yield from _tar_members(opened, name)
        raw = opened.fileobj
        if raw is None or raw.tell() < opened.offset + tarfile.BLOCKSIZE:
            raise EOFError("it has no end marker")  # which tarfile itself accepts
        while raw.read(_CHUNK):
            pass  # to the end, where a compressed file has its checksum


def _open_tar(archive: Path, kind: str, name: str) -> tarfile.TarFile:
    """Opens a tar archive, compressed or not.

    Raises:
      UserError: it is a compressed file that is whole and holds something else.
    """
    try:
        if kind == "an xz archive":
            return tarfile.open(fileobj=_Xz(archive), mode="r|", bufsize=_CHUNK)
        return tarfile.open(archive, "r:*")
    except tarfile.ReadError as error:
        if kind not in _COMPRESSED:
            raise
        with _decompressed(archive, kind) as content:
            inner = kind_of(content.read(_BEGINNING))
            while content.read(_CHUNK):
                pass  # to the end, where the checksum is
        if inner in ("a tar archive", "empty"):
            raise
        raise UserError(f"{name} is {kind} of {inner}, not of a tar archive: {_WAY_OUT}") from error


def _decompressed(archive: Path, kind: str) -> io.BufferedIOBase:
    if kind == "an xz archive":
        return io.BufferedReader(_Xz(archive))
    return gzip.open(archive) if kind == "a gzip archive" else bz2.open(archive)


class _Xz(io.RawIOBase):
    """The content of an xz file.

    Between and after its streams it may have padding, at which `lzma.open` ends or fails.
    """

    def __init__(self, path: Path):
        self._file = path.open("rb")
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            data = b""
            if self._decoder.eof:
                data = self._decoder.unused_data.lstrip(b"\0")
                while not data and (chunk := self._file.read(_CHUNK)):
                    data = chunk.lstrip(b"\0")
                if not data:
                    return 0
                self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ)
            elif self._decoder.needs_input:
                data = self._file.read(_CHUNK)
                if not data:
                    raise EOFError("its compressed data end early")
            content = self._decoder.decompress(data, len(buffer))
            if content:
                buffer[: len(content)] = content
                return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()


def _zip_name(info: zipfile.ZipInfo, guessed: list[str]) -> str:
    """Returns the name of a member; adds it to `guessed` if its encoding is not told."""
    name = info.filename
    if info.flag_bits & _IS_UTF8 or info.orig_filename.isascii():
        encoded = info.orig_filename.encode()
    else:
        encoded = info.orig_filename.encode("cp437")
    rest = info.extra
    while len(rest) >= 4:
        field, size = struct.unpack_from("<HH", rest)
        content, rest = rest[4 : 4 + size], rest[4 + size :]
        # A program that does not know the field may have changed the name since.
        if field == _UNICODE_PATH and content[:5] == b"\1" + struct.pack("<I", zlib.crc32(encoded)):
            return content[5:].decode()
    # Many programs write UTF-8 and do not say so. What is neither is taken as the format says.
    if not info.flag_bits & _IS_UTF8 and not name.isascii():
        try:
            return name.encode("cp437").decode("utf-8")
        except UnicodeError:
            guessed.append(name)
    return name


def _is_zip_folder(info: zipfile.ZipInfo, name: str) -> bool:
    if name.endswith(("/", "\\")):  # the second is Windows' separator
        return True
    # The upper bits hold the Unix mode.
    is_marked = info.external_attr & _IS_FOLDER or info.external_attr >> 28 == 0o04
    return bool(is_marked) and info.file_size == 0


def _zip_members(
    opened: zipfile.ZipFile, archive: str, guessed: list[str]
) -> Iterator[tuple[str, int, IO[bytes]]]:
    for info in opened.infolist():
        name = _zip_name(info, guessed)
        if info.flag_bits & 1:
            raise UserError(f"{archive} is protected with a password: {_WAY_OUT}")
        if (info.external_attr >> 28) == 0o12:  # the upper bits hold the Unix mode
            raise _unsafe(archive, name, "is a link", _WAY_OUT)
        if _is_zip_folder(info, name):
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
            raise _unsafe(archive, member.name, "is a link or a device", _WAY_OUT)
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


def _unsafe(
    archive: str, name: str, what: str, way_out: str = "download it from its source"
) -> UserError:
    return UserError(f"{archive}: its member {name!r} {what}; nothing of it is used: {way_out}")

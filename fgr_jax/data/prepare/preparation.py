"""Prepares tfds data sets from archives or listed image files, completely or not at all."""

import contextlib
import errno
import fcntl
import io
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from tensorflow_datasets.core import constants

from fgr_jax.config import Data
from fgr_jax.data.prepare.archives import is_archive, unpack
from fgr_jax.data.prepare.builder import ImageBuilder, image_problems
from fgr_jax.data.prepare.downloads import download
from fgr_jax.data.prepare.listing import LayoutNotFoundError, Listing, check, counted
from fgr_jax.data.prepare.prepared import is_prepared
from fgr_jax.errors import UserError
from fgr_jax.files.local import local_path, no_such
from fgr_jax.terminal import Terminal

_DUPLICATES_NAMED = 20
_RECORD_OVERHEAD = 1.02  # size of a prepared data set, relative to its image files


def local_data_dir(data_dir: str = "") -> Path:
    """Returns the folder in which data sets are prepared: `data_dir`, or if empty, tfds's own.

    Raises:
      UserError: its path is not UTF-8, which array_record does not take, or not on this machine.
    """
    path = local_path(str(data_dir or constants.DATA_DIR), "--config.data.data_dir")
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"--config.data.data_dir={path}: its path, {path.absolute()}, is not UTF-8; "
            "name another folder"
        ) from error
    return path


def prepare(
    builder: type[ImageBuilder],
    sources: Sequence[Path],
    data_dir: Path,
    terminal: Terminal,
    *,
    reading: Data | None = None,
    verify: bool = False,
) -> bool:
    """Prepares a data set that is distributed as archives, unless it is prepared already.

    Args:
      sources: archives, or one extracted folder; empty: the archives in `data_dir/downloads`, downloaded
        first if possible.
      reading: how the images will be read, which they are checked for; None: as by default.
      verify: whether every image that is prepared is decoded once.

    Returns:
      Whether it was prepared by this call.

    Raises:
      UserError: there is no source, or it is invalid. Nothing is left half-written.
    """
    with exclusive(data_dir, builder.name, terminal):
        staging = data_dir / f".unpacked-{builder.name}"
        shutil.rmtree(staging, ignore_errors=True)  # left behind by a killed process
        if is_prepared(builder.name, data_dir):
            terminal.line(f"data set {builder.name} is prepared in {data_dir} already")
            return False
        if sources:
            _check_archives(builder, sources, terminal)
        else:
            sources = _find_or_download(builder, data_dir / "downloads", terminal)
        staging.mkdir()
        try:
            listing = _read_sources(builder, sources, staging, terminal)
            store(builder, listing, data_dir, terminal, reading=reading, verify=verify)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return True


def prepare_once(name: str, data_dir: Path, terminal: Terminal, build: Callable[[], None]) -> str:
    """Calls `build` unless the data set `name` is prepared, and returns `name`.

    If several processes on this machine call it, one builds and the others wait.
    """
    if not is_prepared(name, data_dir):
        with exclusive(data_dir, name.partition("/")[0], terminal):
            if not is_prepared(name, data_dir):
                build()
    return name


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """Keeps tfds from printing messages about downloads and custom configurations."""
    absl_logger = logging.getLogger("absl")
    level = absl_logger.level
    tfds.disable_progress_bar()
    absl_logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logger.setLevel(level)


def download_and_prepare(building: tfds.core.DatasetBuilder, data_dir: Path) -> None:
    """Prepares a data set as tfds does, but leaves no empty folders in `data_dir` where that fails."""
    try:
        building.download_and_prepare()
    finally:
        with contextlib.suppress(OSError):  # a folder that is not empty stays
            for folder in Path(building.data_dir).parents:
                if folder == data_dir:
                    break
                folder.rmdir()


@contextlib.contextmanager
def exclusive(data_dir: Path, name: str, terminal: Terminal) -> Iterator[None]:
    """Keeps other processes of this machine from preparing the data set `name` in `data_dir`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / f".{name}.lock").open("w") as lock:  # released when the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            terminal.line(f"waiting for another process that is preparing {name} in {data_dir}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_sources(
    builder: type[ImageBuilder], sources: Sequence[Path], staging: Path, terminal: Terminal
) -> Listing:
    """Reads the annotations from archives and single files, or from an extracted folder."""
    for source in sources:
        if not source.exists():
            raise UserError(f"--source={source}: {no_such('file or folder', source)}")
    if len(sources) == 1 and sources[0].is_dir():
        try:
            return builder.read(sources[0])
        except LayoutNotFoundError as error:
            known = (sources[0] / archive.file_name for archive in builder.ARCHIVES)
            others = [path.name for path in sorted(sources[0].iterdir()) if is_archive(path)]
            sources = [path for path in known if path.is_file()]
            if not sources and others:
                raise UserError(
                    f"{error}, but archives: {', '.join(others)}. Pass those of {builder.name} with "
                    "--source=, each by itself"
                ) from error
            if not sources:
                raise UserError(f"{error}. {_how_to_get(builder)}") from error
    for source in sources:
        if source.is_file() and is_archive(source):
            size = source.stat().st_size
            with _bar_of_bytes(terminal, f"unpacking {source.name}", size) as done:
                guessed = unpack(source, staging / source.name.partition(".")[0], done)
            if guessed:
                terminal.warn(
                    f"{source}: {counted(len(guessed), 'name')} in an encoding that it does not tell, "
                    f"such as {guessed[0]!r}: if that is wrong, unpack it with another tool and name "
                    "the folder"
                )
        else:
            (staging / source.name).symlink_to(source.resolve())
    try:
        return builder.read(staging)
    except LayoutNotFoundError as error:
        named = " and ".join(source.name for source in sources)
        missing = str(error).removeprefix(f"{staging} holds ")
        raise UserError(f"{named}: holds {missing}. {_how_to_get(builder)}") from error
    except UserError as error:  # the user does not know where the archive was unpacked
        lines = (line.replace(f"{staging}{os.sep}", "") for line in error.args)
        raise UserError(*lines) from error


def _find_or_download(
    builder: type[ImageBuilder], downloads: Path, terminal: Terminal
) -> list[Path]:
    """Returns the archives of a data set, from `downloads` or downloaded into it."""
    paths = []
    for archive in builder.ARCHIVES:
        path = downloads / archive.file_name
        if path.is_file():
            _check_archives(builder, [path], terminal)
        elif archive.url:
            with _bar_of_bytes(terminal, f"downloading {archive.file_name}", archive.size) as done:
                download(archive, downloads, done)
        else:
            continue
        paths.append(path)
    if not paths:
        raise UserError(
            f"data set {builder.name} cannot be downloaded automatically, and is not in {downloads}. "
            + _how_to_get(builder)
        )
    return paths


@contextlib.contextmanager
def _bar_of_bytes(terminal: Terminal, what: str, size: int) -> Iterator[Callable[[int], None]]:
    """Shows a progress bar in MiB; yields a function that takes the number of bytes so far."""
    with terminal.bar(what, size >> 20, unit="MiB", per=1) as bar:
        yield lambda done: bar.update(done >> 20)


def _check_archives(builder: type[ImageBuilder], paths: Sequence[Path], terminal: Terminal) -> None:
    """Warns if an archive is not the published one, byte for byte."""
    published = {archive.file_name: archive for archive in builder.ARCHIVES}
    for path in paths:
        archive = published.get(path.name)
        if path.is_file() and archive and not archive.is_sound(path):
            terminal.warn(
                f"{path} is not the published {archive.file_name}: its size or checksum differs"
            )


def _how_to_get(builder: type[ImageBuilder]) -> str:
    """Returns a sentence on what to download, where, and how to pass it."""
    names = ", ".join(archive.file_name for archive in builder.ARCHIVES)
    way = builder.HOW_TO_GET or f"download {names} and pass each with --source="
    return f"{builder.HOMEPAGE}: {way}"


def store(
    builder: type[ImageBuilder],
    listing: Listing,
    data_dir: Path,
    terminal: Terminal,
    *,
    variant: tfds.core.BuilderConfig | None = None,
    reading: Data | None = None,
    verify: bool,
) -> None:
    """Writes the images of `listing`, as `prepare` does; warns where training and test share images.

    Raises:
      UserError: images are missing, empty or not images. Nothing is left half-written.
      OSError: the disk is full.
    """
    total = sum(map(len, listing.splits.values()))

    def problems() -> list[str]:
        with terminal.bar("checking", total, unit="images", per=1) as bar:
            return image_problems(listing, reading or Data(), bar.update, verify=verify)

    what, counts = f"data set {builder.name}", builder.COUNTS or {}
    size = check(listing, what, builder.CLASSES, counts, image_problems=problems)
    if shutil.disk_usage(data_dir).free < size * _RECORD_OVERHEAD:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(data_dir))
    with terminal.bar("preparing", total, unit="images", per=1) as bar, quiet_tfds():
        options = {"data_dir": str(data_dir), "config": variant}
        building = builder(
            listing=listing, reading=reading, verify=verify, progress=bar.update, **options
        )
        for path in Path(building.data_dir).parent.glob(f"*{constants.INCOMPLETE_PREFIX}*"):
            shutil.rmtree(path)  # left behind by a killed process
        try:
            download_and_prepare(building, data_dir)
        except RuntimeError as error:  # array_record's has the system's message but no errno
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                if os.strerror(code) in str(error):
                    raise OSError(code, os.strerror(code), str(data_dir)) from error
            raise
    if reading is None or reading.split == "given":
        warn_of_copies(building.duplicates, terminal)
    copies, are = len(building.contradictions), "is" if len(building.contradictions) == 1 else "are"
    what = f"{counted(copies, 'image')} {are} byte for byte also in another class"
    warn_of_pairs(building.contradictions, what, "One of the two labels is wrong", terminal)


def warn_of_copies(pairs: Sequence[tuple[str, str]], terminal: Terminal) -> None:
    """Warns of pairs of a test and a training image that are the same file, if there are any."""
    are = "is" if len(pairs) == 1 else "are"
    what = f"{counted(len(pairs), 'test image')} {are} byte for byte also in the training images"
    warn_of_pairs(pairs, what, "Accuracy on copies says little", terminal)


def warn_of_pairs(
    pairs: Sequence[tuple[str, str]], what: str, consequence: str, terminal: Terminal
) -> None:
    """Warns of pairs of images, counted in `what`, the first of them by name, if there are any."""
    if not pairs:
        return
    named = "; ".join(f"{one} is {other}" for one, other in pairs[:_DUPLICATES_NAMED])
    more = len(pairs) - _DUPLICATES_NAMED
    named += f" and {more:,} more" if more > 0 else ""
    terminal.warn(f"{what}: {named}. {consequence}")

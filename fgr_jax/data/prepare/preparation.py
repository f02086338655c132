"""From archives, or a folder, to a prepared `tfds` data set: all of it or nothing."""

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
from etils import epath
from tensorflow_datasets.core import constants, read_only_builder

from fgr_jax.data.prepare import listing as listing_lib
from fgr_jax.data.prepare.archives import is_archive, unpack
from fgr_jax.data.prepare.builder import PictureBuilder
from fgr_jax.data.prepare.downloads import fetch
from fgr_jax.data.prepare.listing import LayoutNotFoundError, Listing
from fgr_jax.data.sets.folder import Folder
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

_STAGING = ".unpacked"
_DUPLICATES_SHOWN = 20
_RECORD_OVERHEAD = 1.02  # of a prepared data set, over the files' own bytes


def default_data_dir() -> Path:
    """Where tfds keeps its data sets when it is told nothing."""
    return Path(constants.DATA_DIR).expanduser()


def prepare(
    builder: type[PictureBuilder],
    sources: Sequence[Path],
    data_dir: Path,
    terminal: Terminal,
    *,
    verify: bool = False,
) -> None:
    """Prepares a data set that comes in archives; where it is prepared already, does nothing.

    Args:
      builder: which data set.
      sources: archives, or one extracted folder; empty: what is in `data_dir/downloads`, or is fetched.
      data_dir: where data sets are prepared.
      terminal: is told of progress, and of what is odd.
      verify: decode every picture once.

    Raises:
      UserError: there is no source, or something is wrong with it. Nothing is half-written.
    """
    with exclusive(data_dir, builder.name, terminal), _staging(data_dir, builder.name) as staging:
        if is_prepared(builder.name, data_dir):
            terminal.line(f"data set {builder.name} is prepared in {data_dir} already")
            return
        if sources:
            _check_archives(builder, sources, terminal)
        else:
            sources = _find_or_fetch(builder, data_dir / "downloads", terminal)
        listing = _read_sources(builder, sources, staging, terminal)
        _store(builder, listing, data_dir, terminal, verify=verify)


def prepare_folder(folder: str, data_dir: Path, terminal: Terminal, *, verify: bool = False) -> str:
    """Prepares somebody's own pictures, unless these very pictures are prepared already.

    Returns:
      The name under which tfds finds them.

    Raises:
      UserError: the folder has not the layout of `Folder.read`, or holds files that are no pictures.
    """
    if not folder:
        raise UserError(
            "your pictures are nowhere yet: name their folder, --config.data.folder=PATH"
        )
    root = Path(folder).expanduser()
    listing = Folder.read(root)
    variant = Folder.variant(root, listing)
    name = f"{Folder.name}/{variant.name}"
    if not is_prepared(name, data_dir):
        with exclusive(data_dir, Folder.name, terminal):
            if not is_prepared(name, data_dir):
                _store(Folder, listing, data_dir, terminal, variant=variant, verify=verify)
    return name


@contextlib.contextmanager
def quiet_tfds() -> Iterator[None]:
    """While open, tfds does not speak of downloads and custom configurations."""
    absl_logger = logging.getLogger("absl")
    level = absl_logger.level
    tfds.disable_progress_bar()
    absl_logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logger.setLevel(level)


def is_prepared(name: str, data_dir: Path) -> bool:
    """Whether tfds finds the data set `name` in `data_dir`."""
    try:
        read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except tfds.core.DatasetNotFoundError:
        return False
    return True


@contextlib.contextmanager
def exclusive(data_dir: Path, name: str, terminal: Terminal) -> Iterator[None]:
    """While open, no other process of this machine prepares the data set `name` in `data_dir`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    with (data_dir / f".{name}.lock").open("w") as lock:  # let go by the system when we end
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            terminal.line(f"waiting for another process that prepares {name} in {data_dir}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read_sources(
    builder: type[PictureBuilder], sources: Sequence[Path], staging: Path, terminal: Terminal
) -> Listing:
    """Reads the annotations from archives, single files, or an extracted folder."""
    for source in sources:
        if not source.exists():
            raise UserError(f"--source={source}: no such file or folder")
    if len(sources) == 1 and sources[0].is_dir():
        try:
            return builder.read(sources[0])
        except LayoutNotFoundError as error:
            archives = _archives_in(builder, sources[0])
            if not archives:
                raise UserError(f"{error}. {how_to_get(builder)}") from error
            sources = archives
    for source in sources:
        if source.is_file() and is_archive(source):
            size = source.stat().st_size
            with _bar_of_bytes(terminal, f"unpacking {source.name}", size) as done:
                unpack(source, staging / source.name.partition(".")[0], done)
        else:
            (staging / source.name).symlink_to(source.resolve())
    try:
        return builder.read(staging)
    except LayoutNotFoundError as error:
        named = " and ".join(source.name for source in sources)
        missing = str(error).removeprefix(f"{staging} holds ")
        raise UserError(f"{named}: holds {missing}. {how_to_get(builder)}") from error
    except UserError as error:  # the person knows the archive, not where it was unpacked
        raise UserError(str(error).replace(f"{staging}{os.sep}", "")) from error


def _find_or_fetch(
    builder: type[PictureBuilder], downloads: Path, terminal: Terminal
) -> list[Path]:
    """The archives of a data set, from `downloads` or from their makers."""
    if not all(archive.url for archive in builder.ARCHIVES):
        found = _archives_in(builder, downloads)
        if found:
            _check_archives(builder, found, terminal)
            return found
        raise UserError(
            f"data set {builder.name} cannot be fetched by a program, and is not in {downloads}. "
            + how_to_get(builder)
        )
    paths = []
    for archive in builder.ARCHIVES:
        path = downloads / archive.file_name
        if path.is_file():
            _check_archives(builder, [path], terminal)
        else:
            with _bar_of_bytes(terminal, f"fetching {archive.file_name}", archive.size) as done:
                fetch(archive, downloads, done)
        paths.append(path)
    return paths


@contextlib.contextmanager
def _bar_of_bytes(terminal: Terminal, what: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar in MiB; the callable is told bytes."""
    with terminal.bar(what, size >> 20, unit="MiB", per=1) as bar:
        yield lambda done: bar.update(done >> 20)


def _check_archives(
    builder: type[PictureBuilder], paths: Sequence[Path], terminal: Terminal
) -> None:
    """Warns of an archive that is not the published one, byte for byte."""
    published = {archive.file_name: archive for archive in builder.ARCHIVES}
    for path in paths:
        archive = published.get(path.name)
        if path.is_file() and archive and not archive.is_sound(path):
            terminal.warn(
                f"{path} is not the published {archive.file_name}: its size or checksum is another"
            )


def how_to_get(builder: type[PictureBuilder]) -> str:
    """What to get, from whom, and where to put it."""
    names = ", ".join(archive.file_name for archive in builder.ARCHIVES)
    return (
        f"{builder.HOMEPAGE}: {builder.HOW_TO_GET or f'fetch {names} and name it with --source='}"
    )


def check_counts(builder: type[PictureBuilder], listing: Listing) -> None:
    """Compares with the numbers that the data set is known to have.

    Raises:
      UserError: with both numbers.
    """
    problems = listing_lib.Problems()
    classes = len(listing.class_names)
    if builder.CLASSES not in (None, classes):
        problems.add(f"{classes:,} classes instead of {builder.CLASSES:,}")
    for split, expected in (builder.COUNTS or {}).items():
        count = len(listing.splits[split])
        if count != expected:
            problems.add(f"{split}: {count:,} pictures instead of {expected:,}")
    problems.raise_if_any(
        f"data set {builder.name}", "nothing was prepared; the source is not complete"
    )


def _store(
    builder: type[PictureBuilder],
    listing: Listing,
    data_dir: Path,
    terminal: Terminal,
    *,
    variant: tfds.core.BuilderConfig | None = None,
    verify: bool,
) -> None:
    """Writes the data set; what an attempt that was killed has left is removed first."""
    size = listing_lib.check(listing, f"data set {builder.name}")
    check_counts(builder, listing)
    total = sum(map(len, listing.splits.values()))
    if shutil.disk_usage(data_dir).free < size * _RECORD_OVERHEAD:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(data_dir))
    with terminal.bar("preparing", total, unit="pictures", per=1) as bar, quiet_tfds():
        building = builder(
            listing=listing,
            verify=verify,
            progress=bar.update,
            data_dir=str(data_dir),
            config=variant,
        )
        _remove_unfinished(Path(building.data_dir).parent)
        try:
            building.download_and_prepare()
        except RuntimeError as error:  # array_record's carry the system's words, not its number
            for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                if os.strerror(code) in str(error):
                    raise OSError(code, os.strerror(code), str(data_dir)) from error
            raise
    if building.duplicates:
        shown = "; ".join(
            f"{duplicate.test} is {duplicate.train}"
            for duplicate in building.duplicates[:_DUPLICATES_SHOWN]
        )
        more = len(building.duplicates) - _DUPLICATES_SHOWN
        terminal.warn(
            f"{len(building.duplicates):,} test pictures are, byte for byte, training pictures too: "
            f"{shown}{f' and {more:,} more' if more > 0 else ''}. Results on them say little"
        )


@contextlib.contextmanager
def _staging(data_dir: Path, name: str) -> Iterator[Path]:
    """An empty folder to unpack in. It is gone at the end, and after a kill at the next start."""
    folder = data_dir / f"{_STAGING}-{name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unfinished(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            if constants.INCOMPLETE_PREFIX in path.name:
                epath.Path(path).rmtree()


def _archives_in(builder: type[PictureBuilder], folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [
        folder / archive.file_name
        for archive in builder.ARCHIVES
        if (folder / archive.file_name).is_file()
    ]

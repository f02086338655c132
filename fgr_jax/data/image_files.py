"""Finds the image files below a folder, and says which files it leaves out and why."""

import collections
import contextlib
import errno
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fgr_jax.data.images.kinds import SUFFIXES, identify

# Why files and folders are left out.
HIDDEN = "hidden, as their names begin with a dot"
LITTER = "made by the system or another program"
RUN = "the folder of a run, with a config.json and checkpoints"
PREPARED = "a prepared data set, with a dataset_info.json"
NO_IMAGE = "not images, as their first bytes show"
NO_FILE = "neither files nor folders"
ABOVE = "links to a folder above"
REPEATED = "links to a folder that is read already"
BROKEN = "broken links"
UNREADABLE = "cannot be read"  # followed by the system's message in parentheses

# Folders, in lower case, of Jupyter, macOS, Windows, Linux, Python and network storage.
_LITTER = frozenset(
    {
        *("__macosx", "network trash folder", "temporary items"),
        *("$recycle.bin", "recycler", "system volume information", "found.000"),
        *("lost+found", "__pycache__"),
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),
    }
)
_VERSION = re.compile(r"\d+\.\d+\.\d+")  # names the folder of a prepared data set
_BEGINNING = 4096  # bytes
_TEXTS = frozenset({"empty", "a text file", "a JSON document"})
_UNKNOWN = "a file of an unknown kind"
_SHOWN = 3  # examples in a description


class Found(NamedTuple):
    """The image files below a folder, and what else there is."""

    files: list[Path]  # sorted
    left_out: dict[str, list[Path]]  # reason -> files, and folders with all that is in them; sorted


class Level(NamedTuple):
    """What is directly in a folder, sorted."""

    images: list[Path]
    folders: list[Path]
    left_out: dict[str, list[Path]]  # reason -> files and folders


def find_images(folder: Path) -> Found:
    """Returns the images in `folder` and in all folders within it.

    Links are followed, but each folder is read once: a folder itself rather than a link to it, and
    nothing through a link to a folder above. What is an image, and what is left out, is said at `look`.
    """
    files: list[Path] = []
    left_out: dict[str, list[Path]] = collections.defaultdict(list)
    read: set[tuple[int, int]] = set()
    folders, links = [folder], collections.deque[Path]()
    while folders or links:
        # All real folders come first, so that their images keep their own names.
        current = folders.pop() if folders else links.popleft()
        with contextlib.suppress(OSError):  # which `look` reports
            identity = _identity(current)
            if identity in read:
                left_out[REPEATED].append(current)
                continue
            read.add(identity)
        level = look(current)
        files += level.images
        for inside in level.folders:
            (links if inside.is_symlink() else folders).append(inside)
        for reason, paths in level.left_out.items():
            left_out[reason] += paths
    return Found(sorted(files), {reason: sorted(paths) for reason, paths in left_out.items()})


def look(folder: Path) -> Level:
    """Returns the images and folders that are directly in `folder`.

    Images are the files with a suffix of `SUFFIXES`, and those with another suffix or none whose first
    bytes are an image's, even of a format that is not read. No file is an error: one that cannot be read
    is among those left out, as is the folder itself.
    """
    level = Level([], [], collections.defaultdict(list))
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        level.left_out[f"{UNREADABLE} ({error.strerror})"].append(folder)
        return level
    for entry in listed:
        path = Path(entry.path)
        reason = _why_left_out(entry)
        if reason:
            level.left_out[reason].append(path)
        elif not entry.is_dir():
            level.images.append(path)
        elif entry.is_symlink() and _identity(path) in _all_above(folder):
            # It leads to the images of other folders, for example of other classes.
            level.left_out[ABOVE].append(path)
        else:
            level.folders.append(path)
    return level


def is_fault(reason: str) -> bool:
    """Returns whether files that are left out for this reason may be images that the user misses."""
    return reason.startswith((BROKEN, UNREADABLE))


def as_text(path: str | Path) -> str:
    r"""Returns a path as valid text: bytes that are not UTF-8 appear as \xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_litter(name: str) -> bool:
    """Returns whether folders of this name are made by the system or another program."""
    return name.lower() in _LITTER


def is_run(folder: Path) -> bool:
    """Returns whether a training run has written to `folder`: its images are those of a report."""
    return (folder / "config.json").is_file() and (folder / "checkpoints").is_dir()


def is_prepared(folder: Path) -> bool:
    """Returns whether `folder` is a version of a data set that `tfds` has prepared."""
    return bool(_VERSION.fullmatch(folder.name)) and (folder / "dataset_info.json").is_file()


def describe(left_out: Mapping[str, Sequence[Path]], root: Path) -> str:
    """Returns what was left out below `root`, with a few examples: "runs/1 (the folder of a run)"."""
    told = [
        f"{as_text(path.relative_to(root))} ({_what_is(path) if reason == NO_IMAGE else reason})"
        for reason, paths in left_out.items()
        for path in paths[:_SHOWN]
    ]
    count = sum(map(len, left_out.values()))
    more = count - min(len(told), _SHOWN)
    return ", ".join(told[:_SHOWN]) + (f" and {more:,} more" if more else "")


def is_output(found: Found) -> bool:
    """Returns whether a folder holds runs or prepared data sets and besides at most text, as of logs."""
    if found.files or not {RUN, PREPARED} & found.left_out.keys():
        return False
    if found.left_out.keys() - {RUN, PREPARED, HIDDEN, LITTER, NO_IMAGE}:
        return False
    return all(_what_is(path) in _TEXTS for path in found.left_out.get(NO_IMAGE, ()))


def _what_is(path: Path) -> str:
    """Returns what a file is that is left out as no image."""
    try:
        with path.open("rb") as file:
            name = identify(file.read(_BEGINNING)).name
    except OSError:
        return NO_IMAGE
    # Some formats cannot be recognized by their first bytes, such as TGA.
    is_image = path.suffix.lower() in Image.registered_extensions() and name == _UNKNOWN
    return "an image of a format that is not read" if is_image else name


def _why_left_out(entry: "os.DirEntry[str]") -> str:
    """Returns the reason for which a file or folder is left out, or ""."""
    if entry.name.startswith("."):
        return HIDDEN
    try:
        if entry.is_dir():
            return _why_folder_left_out(Path(entry.path))
        if entry.is_file():
            if os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                return ""
            with open(entry.path, "rb") as file:
                return "" if identify(file.read(_BEGINNING)).is_image else NO_IMAGE
        if entry.is_symlink():
            os.stat(entry.path)
    except FileNotFoundError:
        return BROKEN
    except OSError as error:
        return BROKEN if error.errno == errno.ELOOP else f"{UNREADABLE} ({error.strerror})"
    return NO_FILE


def _why_folder_left_out(folder: Path) -> str:
    if is_litter(folder.name):
        return LITTER
    return RUN * is_run(folder) or PREPARED * is_prepared(folder)


def _identity(folder: Path) -> tuple[int, int]:
    """Returns what a folder has in common with all links to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _all_above(folder: Path) -> set[tuple[int, int]]:
    """Returns the identities of a folder and those above it, on its path with and without links."""
    identities: set[tuple[int, int]] = set()
    for path in (folder.absolute(), Path(os.path.realpath(folder))):
        for above in (path, *path.parents):
            with contextlib.suppress(OSError):
                identities.add(_identity(above))
    return identities

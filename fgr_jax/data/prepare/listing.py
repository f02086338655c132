"""Lists the images of a data set from its annotations, before any image is read."""

import codecs
import collections
import dataclasses
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import filterfalse
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from fgr_jax.data.image_files import is_litter
from fgr_jax.data.images.kinds import identify
from fgr_jax.errors import UserError

_NAMED = 20  # problems in a message
_BREAKS = frozenset({"Cc", "Zl", "Zp"})  # control characters and ends of lines, in Unicode
# Shown as nothing though they are letters or marks, as most of Unicode's format characters are.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0000-\U000e0fff]"
)
# Format characters that are shown.
_VISIBLE = re.compile("[\u0600-\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd]")
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NEVER_ANNOTATIONS = {"an HTML page", "a Git LFS pointer", "a git-annex pointer"}
_MATLAB_HDF5 = b"MATLAB 7.3"
_DEEPEST = 4  # levels of folders; no official archive has annotations further down

_T = TypeVar("_T")


class ImageFile(NamedTuple):
    """An image file with its label and annotations."""

    path: str
    label: int  # an index into `Listing.class_names`
    name: str  # unique within its split, with forward slashes
    extra: Mapping[str, Any] | None = None  # values of `ImageBuilder.EXTRA_FEATURES`
    group: str = ""  # images of one group belong on one side of a split


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """All images of a data set, in the order in which they are stored."""

    class_names: Sequence[str]
    splits: Mapping[str, Sequence[ImageFile]]  # "train", "test"
    unused: Sequence[str] = ()  # folders beside those of the splits
    # Reason -> names of files, and of folders with all that is in them.
    left_out: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()  # what to tell the user about how the folders were understood
    problems: Sequence[str] = ()  # what `check` is to name besides what it finds itself


def counted(number: int, noun: str) -> str:
    """Returns "1 image", "2,000 images"."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number:,} {noun if number == 1 else plural}"


def raise_if_any(problems: Sequence[str], what: str, way_out: str) -> None:
    """Raises a UserError that lists `problems` of `what`, one per line, if there are any."""
    if problems:
        heading = f"{what}: {counted(len(problems), 'problem')}"
        more = len(problems) - _NAMED
        raise UserError(
            f"{heading}; {way_out}",
            *problems[:_NAMED],
            *([f"and {more:,} more"] if more > 0 else []),
        )


def check(
    listing: Listing,
    what: str,
    classes: int | None,
    counts: Mapping[str, int],
    *,
    image_problems: Callable[[], Sequence[str]] = tuple,
) -> int:
    """Checks that a listing is complete, that its files exist and that a network can be trained on them.

    Args:
      what: names the data set in errors.
      classes: the required number of classes; None: at least two.
      counts: the required number of images in each split, where known.
      image_problems: returns what is wrong with the content of the images. It is called if something
        else is wrong, so that all is named in one round; otherwise it is found as they are stored.

    Returns:
      The total size of the images, in bytes.

    Raises:
      UserError: naming the listing's own problems, every wrong number, every name of a class that
        cannot be kept, every image that is missing or empty, every name that occurs twice, every class
        without training images, every split without images.
    """
    problems = list(listing.problems)
    total_bytes = 0
    if len(listing.class_names) < 2:
        names = ", ".join(map(repr, listing.class_names)) or "none"
        problems.append(f"there must be at least two classes, and there is {names}")
    if classes not in (None, len(listing.class_names)):
        problems.append(f"{counted(len(listing.class_names), 'class')} instead of {classes:,}")
    problems += _problems_of_names(listing.class_names)
    present = {file.label for file in listing.splits.get("train", ())}
    for label, name in enumerate(listing.class_names):
        if label not in present:
            problems.append(f"the class {name!r} has no training images")
    split_of: dict[str, str] = {}  # by path
    for split, files in listing.splits.items():
        if not files:
            problems.append(f"the split {split} has no images")
        if len(files) != counts.get(split, len(files)):
            problems.append(f"{split}: {counted(len(files), 'image')} instead of {counts[split]:,}")
        repeated = set(_repeated(file.name for file in files))
        problems += [f"{split}: {name} occurs twice in the list" for name in sorted(repeated)]
        for file in files:
            if file.path in split_of and file.name not in repeated:
                problems.append(f"{split}: {file.name} is also listed in {split_of[file.path]}")
            split_of.setdefault(file.path, split)
            try:
                size = os.stat(file.path).st_size
            except FileNotFoundError:
                problems.append(f"{split}: {file.name} is in the list but not in the folder")
                continue
            except OSError as error:
                problems.append(f"{split}: {file.name} cannot be read ({error.strerror})")
                continue
            if size == 0:
                problems.append(f"{split}: {file.name} is empty")
            total_bytes += size
    if problems:
        problems += image_problems()
    raise_if_any(problems, what, "nothing was prepared; correct this and run the command again")
    return total_bytes


def _problems_of_names(class_names: Sequence[str]) -> list[str]:
    """Returns what makes a name unreadable, or the same as another, in files and tables."""
    problems = [
        f"the class {name!r} occurs twice in the list of classes" for name in _repeated(class_names)
    ]
    normalized: dict[str, str] = {}
    visible: dict[str, str] = {}
    for name in dict.fromkeys(class_names):
        kinds = {unicodedata.category(character) for character in name}
        same = normalized.setdefault(unicodedata.normalize("NFC", name), name)
        seen = unicodedata.normalize("NFC", "".join(filterfalse(_is_invisible, name)))
        alike = visible.setdefault(seen, name)
        if "Cs" in kinds:
            what = "that is not UTF-8"
        elif kinds & _BREAKS:
            what = "with a control character or line break"
        elif not seen.strip():
            what = "without a visible character"
        elif name != name.strip():
            what = "that begins or ends with white space"
        elif same != name:
            what = f"that is another way to write {same!a} in Unicode"
        elif alike != name:
            what = f"that differs from {alike!a} in invisible characters only"
        else:
            continue
        written = f"{name!a}" if alike != name or not seen.strip() else f"'{name}'"
        problems.append(f"the class {written} has a name {what}: rename it")
    return problems


def _is_invisible(character: str) -> bool:
    """Returns whether a character is shown as nothing: joiners, marks of direction or byte order."""
    is_format = unicodedata.category(character) == "Cf" and not _VISIBLE.match(character)
    return is_format or bool(_INVISIBLE.match(character))


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in collections.Counter(names).items() if count > 1]


class LayoutNotFoundError(UserError):
    """A folder does not contain the files of the data set."""


def find(root: Path, *wanted: str) -> Path:
    """Returns the file `wanted`, or the first of several that exists, at most a few levels below `root`.

    A name that ends in a slash is that of a folder. Folders of other programs, such as `__MACOSX`, are
    not searched.

    Raises:
      LayoutNotFoundError: there is no such file or folder.
    """
    for name in wanted:
        is_of_kind = Path.is_dir if name.endswith("/") else Path.is_file
        for depth in range(_DEEPEST):
            for candidate in sorted(root.glob("*/" * depth + name.rstrip("/"))):
                above = candidate.relative_to(root).parts[:-1]
                if is_of_kind(candidate) and not any(map(is_litter, above)):
                    return candidate
    raise LayoutNotFoundError(f"{root} holds no {' and no '.join(wanted)}")


def read_text(path: Path) -> str:
    """Returns the text of an annotation file: UTF-8, or UTF-16 or UTF-32 with a byte-order mark.

    Raises:
      UserError: the file does not exist, or is in another encoding, which cannot be told for certain.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: the archive is incomplete") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    kind = identify(data)
    if kind.name in _NEVER_ANNOTATIONS:
        way_out = kind.way_out if "pointer" in kind.name else "download it again"
        raise UserError(f"{path} is {kind.name}, not a list of annotations: {way_out}")
    # The mark of UTF-16 is also the beginning of that of UTF-32.
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
        where = text.find("\0")
        if where < 0:
            return text
        what = f"character {where + 1:,} is a NUL"
    except UnicodeDecodeError as error:
        what = f"byte {error.start + 1:,} is {data[error.start]:#04x}"
    if kind.name not in ("a text file", "a file of an unknown kind"):
        raise UserError(f"{path} is {kind.name}, not a list of annotations: download it again")
    if encoding.startswith(("utf-16", "utf-32")):
        raise UserError(
            f"{path} is not whole as text in {encoding.upper()} ({what}): download it again"
        )
    way_out = "download it again"
    if b"\0" not in data:
        way_out += " or convert it, with `iconv -f WINDOWS-1252 -t UTF-8` if that is its encoding"
    elif unmarked := _encoding_without_mark(data):
        way_out = f"convert it with `iconv -f {unmarked} -t UTF-8`"
    raise UserError(f"{path} is not text in UTF-8 ({what}): {way_out}")


def _encoding_without_mark(data: bytes) -> str:
    """Returns iconv's name of the UTF-16 or UTF-32 that a text without a mark is in, or ""."""
    for encoding in ("UTF-32LE", "UTF-32BE", "UTF-16LE", "UTF-16BE"):
        if len(data) % (int(encoding[4:6]) // 8):
            continue
        text = data.decode(encoding, "ignore")
        # In the other byte order, spaces and digits would be letters of other scripts.
        ascii_characters = sum(map(str.isascii, text))
        if text and "\0" not in text and 3 * ascii_characters > len(text):
            return encoding
    return ""


def split_lines(text: str) -> list[str]:
    """Splits at the ends of lines of Unix, Windows and old Macs, and nowhere else.

    A name may contain other characters at which `str.splitlines` splits.
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_lines(path: Path, fields: int) -> list[list[str]]:
    """Returns the lines of an annotation file as `numbered_lines` splits them."""
    return [row for _, row in numbered_lines(path, fields)]


def numbered_lines(path: Path, fields: int) -> Iterator[tuple[str, list[str]]]:
    """Yields where each line is, for messages, and the line split at spaces into `fields` parts.

    The last part keeps its spaces, and empty lines are skipped.

    Raises:
      UserError: the file does not exist or is not text, or a line has fewer parts.
    """
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        row = line.strip().split(maxsplit=fields - 1)
        if len(row) < fields:
            raise UserError(f"{path}, line {number}: {line!r} has fewer than {fields} fields")
        yield f"{path}, line {number}", row


def read_matlab(path: Path, variable: str, convert: Callable[[Any], _T]) -> list[_T]:
    """Returns the elements of a variable of a MATLAB file, each converted with `convert`.

    Raises:
      UserError: the file is damaged or of a version that cannot be read, or lacks the variable or a
        field of it.
    """
    import scipy.io  # takes half as long as JAX, and only some data sets need it

    try:
        with path.open("rb") as file:
            if file.read(len(_MATLAB_HDF5)) == _MATLAB_HDF5:
                raise UserError(
                    f"{path} is in MATLAB's format 7.3, which is not read: save it with -v7"
                )
        elements = scipy.io.loadmat(str(path), squeeze_me=True)[variable].reshape(-1)
        return [convert(element) for element in elements]
    except UserError:
        raise
    except Exception as error:  # SciPy raises almost anything for a file that is damaged
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is damaged or incomplete ({reason}): download it again") from error


def whole(value: Any) -> int:
    """Returns a number of an annotation file, a text of digits or MATLAB's number, as an integer.

    Raises:
      ValueError: it is negative or not whole.
      TypeError: it is not a number.
      OverflowError: it is infinite.
    """
    is_text = isinstance(value, str)
    number = int(value)
    if number < 0 or (not re.fullmatch("[0-9]+", value) if is_text else number != value):
        raise ValueError(f"{value} is not a whole number")
    return number


def from_one(index: Any, count: int, where: str) -> int:
    """Converts an annotation file's 1-based index to a 0-based index.

    Raises:
      UserError: the index is not a whole number in 1..count.
    """
    try:
        value = whole(index)
    except (ValueError, TypeError, OverflowError):
        value = 0
    if not 1 <= value <= count:
        raise UserError(f"{where}: the label {index} is not in the range 1 to {count}")
    return value - 1


def check_folders(images: Iterable[tuple[str, str, int]], known: Mapping[str, int]) -> None:
    """Checks that images in one folder have one label, and images in two folders two labels.

    Args:
      images: where the label of each is written, for messages; its path; its label, from 0.
      known: the labels of folders of these names, where they are known otherwise.

    Raises:
      UserError: a label contradicts the folder.
    """
    labels, folders = dict(known), dict[int, str]()
    for where, path, label in images:
        folder = path.rpartition("/")[0]
        if not folder:
            continue
        of_folder = labels.setdefault(folder, label)
        of_label = folders.setdefault(label, folder)
        if of_folder != label:
            raise UserError(
                f"{where}: the label of {path} is {label + 1}, and that of its folder is "
                f"{of_folder + 1}: download it again"
            )
        if of_label != folder:
            raise UserError(
                f"{where}: the label of {path} is {label + 1}, which is that of the folder {of_label}: "
                "download it again"
            )

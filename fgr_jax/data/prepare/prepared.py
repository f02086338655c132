"""Prepared data sets: opened by name, with a check that they are complete, and read record by record."""

import concurrent.futures
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex, TypeVar

import tensorflow_datasets as tfds
from array_record.python import array_record_module
from google.protobuf.message import DecodeError
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.proto import tf_example_pb2

from fgr_jax.config import Data
from fgr_jax.data import images
from fgr_jax.data.identity import FOLDER
from fgr_jax.data.prepare.contents import GROUP, ContentDigest, Contents, digest_of
from fgr_jax.data.read_ahead import map_ahead
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

_T = TypeVar("_T")

_INFO, _FEATURES, _METADATA = "dataset_info.json", "features.json", "metadata.json"
_LABELS = "label.labels.txt"
_FILE_NAMES = ("file_name", "image/filename")  # the features; tfds's own data sets use the second
_READERS = 8  # threads
_READ_AHEAD = 64  # records
# What array_record raises; its message has many lines.
_RECORD_ERRORS = (RuntimeError, ValueError, IndexError, OSError)


class NotPreparedError(UserError):
    """A data set is not on this machine, or is damaged."""


class Prepared(NamedTuple):
    """A prepared data set."""

    builder: Any  # tfds's
    contents: Contents
    is_verified: bool = False  # whether every image has just been decoded

    @property
    def name(self) -> str:
        """The name, variant and version, as in "elpv/eight/1.0.0"."""
        return str(self.builder.info.full_name)

    @property
    def is_ours(self) -> bool:
        """Whether a builder of this package prepared it."""
        return _is_ours(self.builder)

    @property
    def folder(self) -> Path:
        return Path(self.builder.data_dir)


def is_prepared(name: str, data_dir: Path) -> bool:
    """Returns whether tfds finds the data set `name` in `data_dir`, damaged or not."""
    return bool(_versions(name, data_dir))


def open_prepared(name: str, data_dir: Path) -> Prepared:
    """Opens the data set `name` after a check of everything but the images.

    Raises:
      NotPreparedError: there is none in `data_dir`, or a file of it is missing or damaged.
      UserError: tfds cannot parse the name.
    """
    try:
        builder = read_only_builder.builder_from_files(name, data_dir=str(data_dir))
        folder = Path(builder.data_dir)
        _check_labels(builder, folder)
        contents = _contents(builder, folder)
        _check_records(builder, folder)
    except UserError:
        raise
    except tfds.core.DatasetNotFoundError:
        for folder in _versions(name, data_dir):
            raise _damaged(folder, *_first_damage(folder)) from None
        raise NotPreparedError(f"data set {name!r} is not prepared in {data_dir}") from None
    except Exception as error:  # of many types: tfds trusts its files
        for folder in _versions(name, data_dir):
            raise _damaged(folder, *_first_damage(folder, error)) from error
        raise UserError(
            f"--config.data.name={name!r}: is not the name of a tfds data set, NAME or NAME/VARIANT "
            f"({error})"
        ) from error
    return Prepared(builder, contents)


class Records:
    """Random access to the records of a split."""

    def __init__(self, prepared: Prepared, split: str):
        """Raises UserError if the data set has no such split or no random access."""
        info = prepared.builder.info
        try:
            self._records = prepared.builder.as_data_source(
                split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
        except NotImplementedError as error:
            raise UserError(
                f"data set {info.full_name} is prepared as {info.file_format.name}, without random "
                "access: prepare it with tfds's file_format='array_record'"
            ) from error
        except (ValueError, TypeError) as error:
            raise UserError(
                f"data set {info.full_name} has no split {split!r} (it has: {', '.join(info.splits)}): "
                f"{error}"
            ) from error
        self._folder, self._split = prepared.folder, split

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Any:
        """Returns the features of a record, each a protobuf list.

        Only the needed features are parsed later: tfds would turn all of them into arrays, which takes
        longer than reading.

        Raises:
          NotPreparedError: the record is damaged.
        """
        try:
            record = self._records[index]
            return tf_example_pb2.Example.FromString(record).features.feature
        except (*_RECORD_ERRORS, DecodeError) as error:
            which = f"{self._split}, record {int(index)}"
            raise _damaged(self._folder, which, f"cannot be read: {error}") from error

    def file_name(self, record: Any, index: SupportsIndex) -> str:
        """Returns the file's own name where the data set keeps one, otherwise the index."""
        names = [record[feature] for feature in _FILE_NAMES if feature in record]
        name = names[0].bytes_list.value[0].decode("utf-8", "backslashreplace") if names else ""
        return name or f"example {int(index)}"


def has_file_names(prepared: Prepared) -> bool:
    """Returns whether a data set keeps the names of its files."""
    return any(feature in prepared.builder.info.features for feature in _FILE_NAMES)


def content_of(prepared: Prepared, terminal: Terminal) -> str:
    """Returns the digest of a data set of ours, from its records if it does not record one."""
    if prepared.contents.digest:
        return prepared.contents.digest
    content = ContentDigest()
    what = f"reading {prepared.name}"
    for split, image in map_records(_entry, prepared, what, terminal):
        content.add(split, *image)
    return content.hexdigest()


def verify(prepared: Prepared, reading: Data, terminal: Terminal) -> list[str]:
    """Reads and decodes every image; returns what is wrong.

    These are the name and problem of each image that cannot be decoded as `reading` says, or that the
    content, where all can be read, is not what was recorded when the data set was prepared.
    """
    problems, unread = [], False
    content, recorded = ContentDigest(), prepared.contents.digest
    work = functools.partial(_verified, reading)
    for split, (image, problem) in map_records(work, prepared, "verifying", terminal):
        if problem:
            problems.append(f"{split}: {problem}")
        if image is None:
            unread = True
        else:
            content.add(split, *image)
    if recorded and not unread and content.hexdigest() != recorded:
        problems.append(
            f"its images, their names, labels or splits are not those that were prepared (content "
            f"{content.hexdigest()[:8]} instead of {recorded[:8]}): a file of records was exchanged or "
            "replaced"
        )
    return problems


def map_records(
    work: Callable[[Records, int], _T], prepared: Prepared, what: str, terminal: Terminal
) -> Iterator[tuple[str, _T]]:
    """Yields the split and `work(records, index)` of every record, in order, computed in threads.

    The progress bar is described by `what`.
    """
    total = sum(split.num_examples for split in prepared.builder.info.splits.values())
    with terminal.bar(what, total, unit="images", per=1) as bar:
        done = itertools.count(1)
        for split in prepared.builder.info.splits:
            records = Records(prepared, split)
            of_split = functools.partial(work, records)
            indices = range(len(records))
            for result in map_ahead(of_split, indices, threads=_READERS, ahead=_READ_AHEAD):
                bar.update(next(done))
                yield split, result


def group_of(record: Any) -> str:
    """Returns the group of an image, or "" if it is in none."""
    values = record[GROUP].bytes_list.value if GROUP in record else ()
    return values[0].decode() if values else ""


def _entry(records: Records, index: int) -> tuple[str, int, bytes, str]:
    """Returns the name, label, digest and group of an image, which it adds to the content."""
    record = records[index]
    encoded = record["image"].bytes_list.value[0]
    label = record["label"].int64_list.value[0]
    return records.file_name(record, index), label, digest_of(encoded), group_of(record)


def _verified(
    reading: Data, records: Records, index: int
) -> tuple[tuple[str, int, bytes, str] | None, str]:
    """Returns what an image adds to the content, or None if it cannot be read, and its problem or ""."""
    try:
        record = records[index]
        encoded = record["image"].bytes_list.value[0]
        label, name = record["label"].int64_list.value[0], records.file_name(record, index)
    except (NotPreparedError, IndexError):
        return None, f"record {index} cannot be read"
    image = (name, label, digest_of(encoded), group_of(record))
    try:
        images.check_readable(encoded, reading, whole=True)
    except images.ImageError as error:
        return image, f"{name} {error}"
    return image, ""


def _versions(name: str, data_dir: Path) -> list[Path]:
    """Returns the folders of the versions of a data set, whatever is in them, the latest first."""
    name, _, wanted = name.partition(":")
    try:
        folders = [path for path in (data_dir / name).iterdir() if path.is_dir()]
    except OSError:
        return []
    found = [path for path in folders if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    found.sort(key=lambda path: [int(number) for number in path.name.split(".")], reverse=True)
    return [path for path in found if wanted in ("", path.name)]


def _damaged(folder: Path, what: str, problem: str) -> NotPreparedError:
    """Returns an error in one line, which never advises to delete what may be the only copy."""
    # array_record's messages go on with numbers and paths, or begin with them.
    reason, *more = (" ".join(part.split()) for part in problem.split(";"))
    reason = reason.partition(" (computed")[0]
    if reason.endswith(":"):
        reason += f" {next(filter(None, more), 'it is damaged')}"
    is_folder = folder.parent.parent.name == FOLDER
    source = "the folder of your images" if is_folder else "its source"
    return NotPreparedError(
        f"{folder}: {what} {reason}; this prepared data set is damaged or was copied in part: copy it "
        f"again, or move that folder away and prepare it again from {source}"
    )


def _first_damage(folder: Path, error: Exception | None = None) -> tuple[str, str]:
    """Returns the first file of tfds's that is missing or damaged, and how."""
    for name in (_INFO, _FEATURES):
        try:
            json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            return name, "is missing"
        except (ValueError, OSError) as problem:
            return name, f"cannot be read ({problem})"
    return f"{_INFO} or {_FEATURES}", f"cannot be read ({type(error).__name__}: {error})"


def _check_labels(builder: Any, folder: Path) -> None:
    """Checks that the file of class names is there and complete."""
    label, path = _label(builder), folder / _LABELS
    if label is None:
        return
    if not path.is_file():
        if _is_ours(builder):  # tfds's own may have numbers for names
            raise _damaged(folder, _LABELS, "is missing")
    elif len(label.names) != label.num_classes or not path.read_bytes().endswith(b"\n"):
        raise _damaged(folder, _LABELS, f"does not hold {label.num_classes} names")


def _contents(builder: Any, folder: Path) -> Contents:
    """Reads the metadata of a data set of ours, and compares it with tfds's files."""
    label = _label(builder)
    names = [] if label is None else list(label.names)
    path = folder / _METADATA
    # Older versions of this package recorded neither release notes nor metadata.
    is_required = _is_ours(builder) and bool(builder.info.release_notes)
    try:
        contents = Contents.from_metadata(json.loads(path.read_bytes()))
    except FileNotFoundError:
        if is_required:
            raise _damaged(folder, _METADATA, "is missing") from None
        return Contents(names)
    except (ValueError, OSError) as error:
        raise _damaged(folder, _METADATA, f"cannot be read ({error})") from error
    if contents is None:
        if is_required:
            raise _damaged(folder, _METADATA, "is not that of this data set")
        return Contents(names)
    if [name.strip() for name in contents.class_names] != names:
        raise _damaged(folder, _LABELS, f"has other names than {_METADATA}")
    for split, numbers in contents.images.items():
        known = builder.info.splits
        if split not in known or known[split].num_examples != sum(numbers):
            raise _damaged(folder, _INFO, f"has other numbers of images than {_METADATA}")
    return contents


def _label(builder: Any) -> tfds.features.ClassLabel | None:
    """Returns the feature with the class names, if there is one."""
    features = dict(builder.info.features)
    label = features.get("label")
    return label if isinstance(label, tfds.features.ClassLabel) else None


def _is_ours(builder: Any) -> bool:
    return str(builder.info.as_proto.module_name).startswith("fgr_jax.")


def _check_records(builder: Any, folder: Path) -> None:
    """Checks that every file of records is there, and has as many as it should."""
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        return
    files = []
    for split in builder.info.splits.values():
        for instruction in split.file_instructions:
            files.append((Path(instruction.filename), instruction.take))
    with concurrent.futures.ThreadPoolExecutor(_READERS) as threads:
        for (path, wanted), found in zip(files, threads.map(_count, files), strict=True):
            if isinstance(found, str):
                raise _damaged(folder, path.name, found)
            if found != wanted:
                raise _damaged(
                    folder, path.name, f"has {found} readable images instead of {wanted}"
                )


def _count(file: tuple[Path, int]) -> int | str:
    """Returns the number of records in a file, or what is wrong with it."""
    path = file[0]
    if not path.is_file():
        return "is missing"
    try:
        reader = array_record_module.ArrayRecordReader(
            str(path), options="readahead_buffer_size:0", file_reader_buffer_size=1 << 15
        )
        count = int(reader.num_records())
        reader.close()
    except _RECORD_ERRORS as error:
        return f"cannot be read: {error}"
    return count

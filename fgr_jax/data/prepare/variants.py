"""Prepared variants of "folder": which of them holds the images of a folder.

The content decides, not the folder's path or the times of its files. So that the images need not be
read every time, a file beside each variant remembers the folders that were found to hold its content,
with what the system says of their files, as in git's index.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fgr_jax.data.identity import FOLDER, DataIdentity
from fgr_jax.data.image_files import as_text
from fgr_jax.data.prepare.contents import ContentDigest, digest_of
from fgr_jax.data.prepare.listing import Listing
from fgr_jax.data.prepare.prepared import (
    NotPreparedError,
    Prepared,
    Records,
    content_of,
    is_prepared,
    open_prepared,
)
from fgr_jax.errors import UserError
from fgr_jax.files.atomic import atomic_write
from fgr_jax.terminal import Terminal

_REMEMBERED = "verified_folders.json"
_READERS = 4  # threads
_LONGEST_SLUG = 200  # bytes: names of folders have at most 255 on nearly all file systems
# A file that is changed again within the resolution of the file system's clock looks unchanged.
_CLOCK_RESOLUTION = 2.0  # seconds, as that of FAT


class FolderImages:
    """The images of a folder or table, and what is known of them without and with reading them."""

    def __init__(self, root: Path, listing: Listing):
        self.root, self.listing = root, listing
        self._path = os.path.realpath(root)
        self._seen_at = time.time()
        self._status = self._stat()

    def _stat(self) -> tuple[list[tuple[str, str, int, int]], str, float]:
        """Returns split, name, label and size of every file, a digest of all, and the last change."""
        facts, last_change = [], 0.0
        digest = hashlib.blake2b(digest_size=16)
        if self.root.is_file():  # a table: the names of its files do not say those of the classes
            digest.update(ascii(list(self.listing.class_names)).encode())
        for split, files in self.listing.splits.items():
            for file in files:
                try:
                    status = os.stat(file.path)
                except OSError:  # `listing.check` names it
                    facts.append((split, file.name, file.label, -1))
                    continue
                facts.append((split, file.name, file.label, status.st_size))
                times = f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
                # No file name has a null character.
                known = f"{split} {file.label} {file.name}\0{status.st_size} {times}\0"
                known += f"{file.group}\0" if file.group else ""
                digest.update(known.encode("utf-8", "backslashreplace"))
                last_change = max(last_change, status.st_ctime)
        return facts, digest.hexdigest(), last_change

    @functools.cached_property
    def cheap_digest(self) -> str:
        """The digest of names, labels and sizes, which is in the names of variants."""
        facts = ascii((list(self.listing.class_names), self._status[0]))
        return hashlib.blake2b(facts.encode(), digest_size=6).hexdigest()

    def is_remembered_at(self, variant: Path) -> bool:
        """Returns whether the folder was found to hold the variant's content, and has not changed."""
        return _read(variant).get("folders", {}).get(self._path) == self._status[1]

    def remember_at(self, variant: Path, content: str) -> None:
        """Remembers that the folder holds the variant's content, where that can be relied upon."""
        _, digest, last_change = self._status
        is_settled = last_change + _CLOCK_RESOLUTION < self._seen_at
        if is_settled and self._stat()[1] == digest:
            remembered = _read(variant)
            folders = remembered.get("folders", {}) | {self._path: digest}
            _write(variant, {"content": content, "folders": folders})

    def content(self, terminal: Terminal) -> str:
        """Returns the digest of the content: reads every image."""
        content = ContentDigest()
        files = [(split, file) for split, files in self.listing.splits.items() for file in files]
        with (
            concurrent.futures.ThreadPoolExecutor(_READERS) as threads,
            terminal.bar("comparing", len(files), unit="images", per=1) as bar,
        ):
            digests = threads.map(lambda each: _digest_of_file(each[1].path), files)
            for done, ((split, file), digest) in enumerate(zip(files, digests, strict=True)):
                content.add(split, file.name, file.label, digest, file.group)
                bar.update(done + 1)
        return content.hexdigest()


def find(
    images: FolderImages, data_dir: Path, recorded: DataIdentity | None, terminal: Terminal
) -> Prepared | None:
    """Opens the prepared variant that holds `images`; returns None if there is none.

    Args:
      images: the images of a folder.
      data_dir: where data sets are prepared.
      recorded: what a run was trained on: that variant, of several with the same content.
      terminal: shows the progress where images have to be read.
    """
    variants = _variants(data_dir, first=recorded)
    for variant in variants:
        if images.is_remembered_at(variant):
            return open_variant(variant)
    content = ""
    for variant in variants:
        prepared = _candidate(images, variant)
        if prepared is None:
            continue
        content = content or images.content(terminal)
        if _content_at(variant, prepared, terminal) == content:
            images.remember_at(variant, content)
            return _with_digest(prepared, content)
    return None


def new_variant(images: FolderImages, data_dir: Path) -> tfds.core.BuilderConfig:
    """Returns a variant for a folder that is not prepared, with a name that is not taken."""
    # "pictures" is in the names of data sets that were prepared before.
    slug = re.sub(r"[^a-z0-9]+", "_", images.root.resolve().name.lower()).strip("_") or "pictures"
    slug = slug[:_LONGEST_SLUG]  # the digest tells variants apart
    taken = {path.name for path in _variants(data_dir)}
    names = (
        f"{slug}-{images.cheap_digest}" + (f"-{number}" if number > 1 else "")
        for number in itertools.count(1)
    )
    name = next(name for name in names if name not in taken)
    return tfds.core.BuilderConfig(
        name=name, description=f"The images in {as_text(images.root.name)}."
    )


def find_recorded(identity: DataIdentity, data_dir: Path) -> Prepared | None:
    """Opens the prepared variant that `identity` names, or one with its content, if there is one."""
    if not identity.is_folder:
        return None
    for variant in _variants(data_dir, first=identity):
        is_named = variant.name == _variant_name(identity)
        try:
            prepared = open_variant(variant)
        except UserError:
            if is_named:
                raise
            continue
        content = prepared.contents.digest
        if content == identity.content if content and identity.content else is_named:
            return prepared
    return None


def open_variant(variant: Path) -> Prepared:
    """Opens a variant by its folder, with the digest of its content if that is known."""
    prepared = open_prepared(f"{FOLDER}/{variant.name}", variant.parent.parent)
    content = prepared.contents.digest or str(_read(variant).get("content", ""))
    return _with_digest(prepared, content)


def with_content(identity: DataIdentity, data_dir: Path, terminal: Terminal) -> DataIdentity:
    """Adds the content to the identity of a folder that an older version recorded.

    It is that of the prepared variant; without the variant, `identity` is returned unchanged.
    """
    if identity.content or not identity.is_folder:
        return identity
    variant = data_dir / FOLDER / _variant_name(identity)
    try:
        content = _content_at(variant, open_variant(variant), terminal)
        return dataclasses.replace(identity, content=content)
    except NotPreparedError:
        return identity


def is_still_in(root: Path, prepared: Prepared) -> bool:
    """Returns whether a folder holds every image of a variant under its name, however it is read.

    The names in a split are relative to one folder, which is `root` or at most two levels below.
    """
    below = [Path(path) for depth in ("*/", "*/*/") for path in sorted(root.glob(depth))]
    for split in prepared.builder.info.splits:
        records, candidates = Records(prepared, split), [root, *below]
        for index in range(len(records)):
            record = records[index]
            name, digest = (
                records.file_name(record, index),
                digest_of(record["image"].bytes_list.value[0]),
            )
            candidates = [folder for folder in candidates if (folder / name).is_file()]
            candidates = [
                folder for folder in candidates if _digest_of_file(str(folder / name)) == digest
            ]
            if not candidates:
                return False
    return True


def _variant_name(identity: DataIdentity) -> str:
    return identity.data_set.split("/")[1]


def _variants(data_dir: Path, *, first: DataIdentity | None = None) -> list[Path]:
    """Returns the folders of all variants, damaged or not, that of `first` before the others.

    Without those that a process is writing, or was killed while writing.
    """
    name = _variant_name(first) if first is not None and first.is_folder else ""
    try:
        names = [path.name for path in (data_dir / FOLDER).iterdir()]
    except OSError:
        return []
    found = [
        data_dir / FOLDER / each for each in names if is_prepared(f"{FOLDER}/{each}", data_dir)
    ]
    return sorted(found, key=lambda path: (path.name != name, path.name))


def _candidate(images: FolderImages, variant: Path) -> Prepared | None:
    """Opens the variant if it may hold `images`, as far as can be told without reading them.

    Raises:
      NotPreparedError: it may, and is damaged.
    """
    if re.fullmatch(rf".*-{images.cheap_digest}(-\d+)?", variant.name):
        return open_variant(variant)
    try:
        prepared = open_variant(variant)
    except UserError:
        return None
    if prepared.contents.images:
        return None  # not of an older version: its name would have told
    counts = {split: each.num_examples for split, each in prepared.builder.info.splits.items()}
    listing = images.listing
    same_counts = counts == {split: len(files) for split, files in listing.splits.items()}
    same_names = list(prepared.contents.class_names) == list(listing.class_names)
    return prepared if same_counts and same_names else None


def _content_at(variant: Path, prepared: Prepared, terminal: Terminal) -> str:
    """Returns the digest of a variant's content, and remembers it where it has to be computed."""
    content = prepared.contents.digest
    if not content:
        content = content_of(prepared, terminal)
        _write(variant, _read(variant) | {"content": content})
    return content


def _with_digest(prepared: Prepared, content: str) -> Prepared:
    return prepared._replace(contents=dataclasses.replace(prepared.contents, digest=content))


def _read(variant: Path) -> dict[str, Any]:
    """Returns what is remembered of a variant; nothing if the file is missing or damaged."""
    try:
        value = json.loads((variant / _REMEMBERED).read_bytes())
    except (OSError, ValueError):
        return {}
    is_sound = isinstance(value, dict) and isinstance(value.get("folders", {}), dict)
    return value if is_sound else {}


def _write(variant: Path, value: Mapping[str, Any]) -> None:
    """Remembers `value` of a variant if its folder can be written to."""
    with contextlib.suppress(OSError), atomic_write(variant / _REMEMBERED) as unfinished:
        unfinished.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _digest_of_file(path: str) -> bytes:
    try:
        return digest_of(Path(path).read_bytes())
    except OSError:  # it is named when the folder is prepared
        return b""

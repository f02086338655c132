"""The tfds builder for all data sets of image files.

The bytes of the files are stored as they are, in the listing's order, one shard at a time: memory
does not grow with the number of images, and nothing is re-encoded.
"""

import dataclasses
import functools
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from fgr_jax.config import Data
from fgr_jax.data import images
from fgr_jax.data.prepare.contents import GROUP, ContentDigest, Contents, digest_of
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import ImageFile, Listing, raise_if_any
from fgr_jax.data.read_ahead import map_ahead

_SHARD_BYTES = 64 << 20  # tfds keeps one shard in memory
_READERS = 4  # threads: reading waits for the disk
_READ_AHEAD = 8  # chunks
_CHUNK = 4  # images that are read together: handing over each by itself takes as long as reading it


class ImageBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set of labeled image files; a subclass defines their location and required numbers."""

    VERSION = tfds.core.Version("1.0.0")
    # Data sets of older versions of this package have no release notes, and no metadata.
    RELEASE_NOTES: ClassVar = {"1.0.0": "Classes, numbers of images and a digest in metadata.json."}
    HOMEPAGE: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""
    # As in the paper's table 1; a source with other numbers is rejected. None accepts any number.
    CLASSES: ClassVar[int | None] = None
    COUNTS: ClassVar[Mapping[str, int] | None] = None
    ARCHIVES: ClassVar[Sequence[Archive]] = ()
    HOW_TO_GET: ClassVar[str] = ""  # for the user, where the archives cannot be downloaded
    EXTRA_FEATURES: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads the annotations in an extracted archive.

        Raises:
          LayoutNotFoundError: `root` does not contain the expected files.
          UserError: the annotations are incomplete or inconsistent.
        """
        raise NotImplementedError

    def __init__(
        self,
        *,
        listing: Listing,
        reading: Data | None = None,
        verify: bool = False,
        progress: Callable[[int], None] = lambda _: None,
        **kwargs: Any,
    ):
        """Stores `listing`, whose images are checked to be readable as `reading` says.

        `verify` decodes every image, `progress` takes the number stored so far.
        """
        self._listing = listing
        self._reading = reading or Data()
        self._verify = verify
        self._progress = progress
        self._stored = 0
        self._problems: list[str] = []
        self._content = ContentDigest()
        self._first: dict[
            bytes, tuple[str, ImageFile]
        ] = {}  # split and file, by the digest of bytes
        # Pairs of files with equal content: test and training; of two labels, each with its split.
        self.duplicates: list[tuple[str, str]] = []
        self.contradictions: list[tuple[str, str]] = []
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(),
            "label": tfds.features.ClassLabel(names=list(self._listing.class_names)),
            "file_name": tfds.features.Text(),
            **self.EXTRA_FEATURES,
        }
        if any(file.group for files in self._listing.splits.values() for file in files):
            features[GROUP] = tfds.features.Text()
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(features),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,
        )

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        super()._download_and_prepare(*args, **kwargs)
        way_out = "nothing was prepared; replace these files or remove them"
        raise_if_any(self._problems, f"data set {self.name}", way_out)
        contents = Contents.of(self._listing)
        contents = dataclasses.replace(contents, digest=self._content.hexdigest())
        self.info.metadata.update(contents.to_metadata())

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        del dl_manager
        return {
            split: [functools.partial(self._examples, split, shard) for shard in _shards(files)]
            for split, files in self._listing.splits.items()
        }

    def _examples(
        self, split: str, files: Sequence[ImageFile]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        reads = _read_ahead(files, self._reading, self._verify)
        for file, (data, digest, problem) in zip(files, reads, strict=True):
            self._stored += 1
            self._progress(self._stored)
            if problem:
                self._problems.append(f"{split}: {file.name} {problem}")
                continue
            self._content.add(split, file.name, file.label, digest, file.group)
            self._compare(split, file, digest)
            features = {"image": io.BytesIO(data), "label": file.label, "file_name": file.name}
            if GROUP in self.info.features:
                features[GROUP] = file.group
            yield file.name, features | dict(file.extra or {})

    def _compare(self, split: str, file: ImageFile, digest: bytes) -> None:
        """Notes where `file` has the same content as an earlier one in another split or class."""
        first_split, first = self._first.setdefault(digest, (split, file))
        if first is file:
            return
        names = f"{split}/{file.name}", f"{first_split}/{first.name}"
        if first_split != split:
            self.duplicates.append(names)
        if first.label != file.label:
            self.contradictions.append(names)


def image_problems(
    listing: Listing, reading: Data, progress: Callable[[int], None], *, verify: bool = False
) -> list[str]:
    """Returns what is wrong with the content of the images; `listing.check` names empty files."""
    problems = []
    done = itertools.count(1)
    for split, files in listing.splits.items():
        present = [
            file for file in files if os.path.exists(file.path) and os.path.getsize(file.path)
        ]
        for file, (_, _, problem) in zip(
            present, _read_ahead(present, reading, verify), strict=True
        ):
            progress(next(done))
            if problem:
                problems.append(f"{split}: {file.name} {problem}")
    return problems


def _shards(files: Sequence[ImageFile]) -> list[Sequence[ImageFile]]:
    """Cuts a split into shards of at most `_SHARD_BYTES`, or of one file."""
    starts, filled = [0], 0
    for index, file in enumerate(files):
        size = os.stat(file.path).st_size
        if filled and filled + size > _SHARD_BYTES:
            starts.append(index)
            filled = 0
        filled += size
    return [files[start:end] for start, end in itertools.pairwise([*starts, len(files)])]


def _read_ahead(
    files: Sequence[ImageFile], reading: Data, verify: bool
) -> Iterator[tuple[bytes, bytes, str]]:
    """Reads in threads, a few images ahead, and yields in order what `_read` returns."""
    chunks = (files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK))
    work = functools.partial(_read_all, reading=reading, verify=verify)
    for images_read in map_ahead(work, chunks, threads=_READERS, ahead=_READ_AHEAD):
        yield from images_read


def _read_all(
    files: Sequence[ImageFile], reading: Data, verify: bool
) -> list[tuple[bytes, bytes, str]]:
    return [_read(file, reading, verify) for file in files]


def _read(file: ImageFile, reading: Data, verify: bool) -> tuple[bytes, bytes, str]:
    """Returns the content, its digest, and the problem, or "" if there is none."""
    try:
        with open(file.path, "rb") as opened:  # a Path would take a tenth of the time
            data = opened.read()
        images.check_readable(data, reading, whole=verify)
    except OSError as error:
        return b"", b"", f"cannot be read ({error.strerror})"
    except images.ImageError as error:
        return b"", b"", str(error)
    return data, digest_of(data), ""

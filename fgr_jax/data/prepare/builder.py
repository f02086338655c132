"""The `tfds` builder that all data sets of pictures share.

The files' own bytes are stored, in the listing's order, in shards that are written one after the other:
memory does not grow with the number of pictures, and nothing is encoded again.
"""

import collections
import concurrent.futures
import functools
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds

from fgr_jax.data import images
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import Listing, Picture, Problems

_SHARD_BYTES = 64 << 20  # tfds holds one shard in memory
_READERS = 4  # threads: reading waits for the disk
_READ_AHEAD = 32  # pictures


class Duplicate(NamedTuple):
    """Two files with the same content on both sides of the split."""

    train: str
    test: str


class PictureBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """A data set of labeled pictures; its subclasses say where they are and what must be there."""

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE: ClassVar[str] = ""
    LICENSE: ClassVar[str] = ""
    # Of the paper's table 1; a preparation with other numbers is refused. None: anything goes.
    CLASSES: ClassVar[int | None] = None
    COUNTS: ClassVar[Mapping[str, int] | None] = None
    ARCHIVES: ClassVar[Sequence[Archive]] = ()
    HOW_TO_GET: ClassVar[str] = ""  # for a person, where the archives cannot be fetched
    EXTRA_FEATURES: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads the annotations in an extracted archive.

        Raises:
          LayoutNotFoundError: `root` holds something else.
          UserError: the annotations contradict themselves.
        """
        raise NotImplementedError

    def __init__(
        self,
        *,
        listing: Listing,
        verify: bool = False,
        progress: Callable[[int], None] = lambda _: None,
        **kwargs: Any,
    ):
        """`verify` decodes every picture; `progress` is told how many pictures are stored."""
        self._listing = listing
        self._verify = verify
        self._progress = progress
        self._stored = 0
        self._problems = Problems()
        self._in_train: dict[bytes, str] = {}
        self.duplicates: list[Duplicate] = []
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.ClassLabel(names=list(self._listing.class_names)),
                    "file_name": tfds.features.Text(),
                    **self.EXTRA_FEATURES,
                }
            ),
            homepage=self.HOMEPAGE,
            license=self.LICENSE,
            disable_shuffling=True,
        )

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        super()._download_and_prepare(*args, **kwargs)
        self._problems.raise_if_any(
            f"data set {self.name}",
            "nothing was prepared; bring these files again, or take them out",
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> Mapping[str, Sequence[Callable[[], Iterator[tuple[str, dict[str, Any]]]]]]:
        del dl_manager
        return {
            split: [functools.partial(self._examples, split, shard) for shard in _shards(pictures)]
            for split, pictures in self._listing.splits.items()
        }

    def _examples(
        self, split: str, pictures: Sequence[Picture]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for picture, data, digest, problem in _read_ahead(pictures, self._verify):
            self._stored += 1
            self._progress(self._stored)
            if problem:
                self._problems.add(f"{split}: {picture.name} {problem}")
                continue
            if split == "train":
                self._in_train[digest] = picture.name
            elif digest in self._in_train:
                self.duplicates.append(Duplicate(self._in_train[digest], picture.name))
            yield (
                picture.name,
                {
                    "image": io.BytesIO(data),
                    "label": picture.label,
                    "file_name": picture.name,
                    **(picture.extra or {}),
                },
            )


def _shards(pictures: Sequence[Picture]) -> list[Sequence[Picture]]:
    """Cuts a split where `_SHARD_BYTES` are full."""
    starts, filled = [0], 0
    for index, picture in enumerate(pictures):
        size = os.stat(picture.path).st_size
        if filled and filled + size > _SHARD_BYTES:
            starts.append(index)
            filled = 0
        filled += size
    return [pictures[start:end] for start, end in itertools.pairwise([*starts, len(pictures)])]


class _Read(NamedTuple):
    picture: Picture
    data: bytes
    digest: bytes  # of the content
    problem: str  # empty: none


def _read_ahead(pictures: Sequence[Picture], verify: bool) -> Iterator[_Read]:
    """Reads in threads, a few pictures ahead, and yields in order."""
    with concurrent.futures.ThreadPoolExecutor(_READERS) as threads:
        waiting: collections.deque[concurrent.futures.Future[_Read]] = collections.deque()
        for picture in pictures:
            waiting.append(threads.submit(_read, picture, verify))
            if len(waiting) > _READ_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _read(picture: Picture, verify: bool) -> _Read:
    problem = ""
    try:
        data = Path(picture.path).read_bytes()
    except OSError as error:
        return _Read(picture, b"", b"", f"cannot be read ({error.strerror})")
    try:
        images.check(data)
        if verify:
            images.decode(data)
    except images.ImageError as error:
        problem = str(error)
    return _Read(picture, data, hashlib.blake2b(data, digest_size=16).digest(), problem)

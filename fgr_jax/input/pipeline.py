"""Batches of decoded pictures from an `ExampleSource`, read by Grain.

The stream of global batches is a function of the seed and the step alone. Threads, worker processes
and the number of training processes only decide who decodes what: of every global batch, process p of
P gets the p-th contiguous share of the rows.
"""

import dataclasses
import signal
from collections.abc import Iterator
from typing import Any, Protocol, SupportsIndex, TypedDict

import cv2
import grain
import numpy as np
import numpy.typing as npt

from fgr_jax import random_streams
from fgr_jax.config import Data, Runtime
from fgr_jax.errors import UserError
from fgr_jax.input import images
from fgr_jax.input.source import Example

# Batches decoded ahead of the training step, for each thread that decodes one.
_BATCHES_AHEAD_PER_THREAD = 2


class Batch(TypedDict):
    """This process's share of a global batch."""

    image: npt.NDArray[np.uint8]  # [B, crop, crop, 3], RGB
    label: npt.NDArray[np.int32]  # [B]
    mask: npt.NDArray[np.bool_]  # [B], false for padding and for skipped pictures


Row = dict[str, Any]  # one example, which Grain stacks to a `Batch`


class Source(Protocol):
    """What the pipeline needs of a data set."""

    data_set: str
    split: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex) -> Example: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """Which part of every global batch this process reads."""

    batch_size: int  # of the global batch
    process_index: int = 0
    process_count: int = 1

    @property
    def local_batch_size(self) -> int:
        return self.batch_size // self.process_count


def training_batches(
    source: Source, data: Data, runtime: Runtime, share: Share, *, seed: int, steps: range
) -> Iterator[Batch]:
    """Shuffled, augmented batches: those of `steps`, the first step of a run being step 0.

    Every epoch has an order of its own, and an example another augmentation in every epoch.

    Raises:
      UserError: (while iterating) a picture is corrupt and `data.corrupt_images` is "stop".
    """
    examples = (
        grain.MapDataset.source(source)
        .shuffle(seed=random_streams.stream_seed(seed, "order"))
        .repeat()
        .random_map(
            _Augment(data, source.data_set, source.split),
            seed=random_streams.stream_seed(seed, "augmentation"),
        )
    )
    return _read(examples, runtime, share, steps)


def evaluation_batches(
    source: Source, data: Data, runtime: Runtime, share: Share
) -> Iterator[Batch]:
    """Every example once, in order, centre crop; the last batch is padded and masked.

    Raises:
      UserError: (while iterating) a picture is corrupt and `data.corrupt_images` is "stop".
    """
    batches = evaluation_batch_count(source, share)
    examples = grain.MapDataset.range(batches * share.batch_size).map(_Padded(source, data))
    return _read(examples, runtime, share, range(batches))


def evaluation_batch_count(source: Source, share: Share) -> int:
    """Global batches that cover `source`."""
    return -(-len(source) // share.batch_size)


def _read(
    examples: grain.MapDataset, runtime: Runtime, share: Share, steps: range
) -> Iterator[Batch]:
    # Batch s·P + p of the local size is process p's share of the global batch of step s.
    first, end = (step * share.process_count for step in (steps.start, steps.stop))
    batches = examples.batch(share.local_batch_size)[
        first + share.process_index : end : share.process_count
    ]
    iterable = batches.to_iter_dataset(
        grain.ReadOptions(
            num_threads=runtime.decode_threads,
            prefetch_buffer_size=_BATCHES_AHEAD_PER_THREAD * runtime.decode_threads,
        )
    )
    if runtime.decode_workers:
        iterable = iterable.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=runtime.decode_workers),
            worker_init_fn=_leave_ctrl_c_to_the_parent,
        )
    return iter(iterable)


def _leave_ctrl_c_to_the_parent(worker: int, workers: int) -> None:
    """A terminal sends Ctrl-C to every process; the training process decides what becomes of it."""
    del worker, workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Decoder:
    """Decodes and resizes an example, or answers for a corrupt one by the config's policy."""

    def __init__(self, data: Data, data_set: str, split: str):
        self._data = data
        self._where = f"data set {data_set}, split {split}"

    def __call__(self, example: Example) -> images.Image | None:
        """uint8 `[resize, resize, 3]`, or None for a corrupt picture that is skipped."""
        cv2.setNumThreads(1)  # a batch is decoded by one thread, and there are several of those
        try:
            return images.resize(images.decode(example.encoded_image), self._data.resize)
        except images.ImageError as error:
            if self._data.corrupt_images == "skip":
                return None
            raise UserError(
                f"{self._where}: {example.name} {error}; replace the file and prepare the data set "
                "again, or leave such pictures out with --config.data.corrupt_images=skip"
            ) from error


class _Augment:
    """Training: random crop and random flip (and rotation) of a decoded example."""

    def __init__(self, data: Data, data_set: str, split: str):
        self._decode = _Decoder(data, data_set, split)
        self._data = data

    def __call__(self, example: Example, rng: np.random.Generator) -> Row:
        image = self._decode(example)
        if image is None:
            return _blank(self._data.crop)
        margin = self._data.resize - self._data.crop
        top, left = rng.integers(margin, endpoint=True, size=2)
        image = images.crop(image, top, left, self._data.crop)
        if self._data.augmentation == "dihedral":
            image = images.dihedral(image, int(rng.integers(8)))
        elif rng.integers(2):
            image = image[:, ::-1]
        return _row(image, example.label)


class _Padded:
    """Test: centre crop of example i, or padding where i is past the end."""

    def __init__(self, source: Source, data: Data):
        self._source = source
        self._decode = _Decoder(data, source.data_set, source.split)
        self._crop = data.crop

    def __call__(self, index: int) -> Row:
        if index >= len(self._source):
            return _blank(self._crop)
        example = self._source[index]
        image = self._decode(example)
        if image is None:
            return _blank(self._crop)
        return _row(images.centre_crop(image, self._crop), example.label)


def _row(image: images.Image, label: int) -> Row:
    return {
        "image": np.ascontiguousarray(image),
        "label": np.int32(label),
        "mask": np.bool_(True),
    }


def _blank(size: int) -> Row:
    return {
        "image": np.zeros((size, size, 3), np.uint8),
        "label": np.int32(0),
        "mask": np.bool_(False),
    }

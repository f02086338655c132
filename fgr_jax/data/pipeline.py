"""Batches of decoded pictures from an `ExampleSource`, read by Grain.

The stream of global batches is a function of the seed and the step alone. Threads, worker processes
and the number of training processes only decide who decodes what: of every global batch, process p of
P gets the p-th contiguous share of the rows.
"""

import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, SupportsIndex, TypedDict, TypeVar

import cv2
import grain
import numpy as np
import numpy.typing as npt

from fgr_jax import random_streams
from fgr_jax.config import Data, Runtime
from fgr_jax.data import images, symmetries
from fgr_jax.data.source import Example
from fgr_jax.errors import UserError

# Batches that are ready beside those that the threads are decoding.
_BATCHES_AHEAD_OF_THE_THREADS = 1


class Batch(TypedDict):
    """This process's share of a global batch."""

    image: npt.NDArray[np.uint8]  # [B, crop, crop, 3], RGB
    label: npt.NDArray[np.int32]  # [B]
    mask: npt.NDArray[np.bool_]  # [B], false for padding and for skipped pictures


class TrainingBatch(Batch):
    """This process's share of a global batch to be trained on."""

    symmetry: npt.NDArray[np.int32]  # [B], what the devices do to the pictures: `symmetries.turned`


class AnnotatedBatch(TypedDict):
    """This process's share of a global batch of a test split, with what is known of its pictures."""

    image: npt.NDArray[np.uint8]  # [B, V, crop, crop, 3], RGB: V crops, the center the last
    label: npt.NDArray[np.int32]  # [B]
    mask: npt.NDArray[np.bool_]  # [B], false for padding and for corrupt pictures
    # [B, P, 3]: of each annotated part its x and y, in pixels of the center crop, and whether it is
    # visible there.
    parts: npt.NDArray[np.float32]
    name: list[str]  # of the pictures; empty for padding
    problem: list[str]  # why a picture is corrupt; empty where it is not


class Source(Protocol):
    """What the pipeline needs of a data set."""

    data_set: str
    split: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex) -> Example: ...


class AnnotatedSource(Source, Protocol):
    """A data set in which parts of what the pictures show may be annotated."""

    part_count: int  # in every picture; 0: no annotations


_AnyBatch = TypeVar("_AnyBatch", Batch, TrainingBatch, AnnotatedBatch)


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
) -> Iterator[TrainingBatch]:
    """Shuffled, augmented batches: those of `steps`, the first step of a run being step 0.

    Every epoch has an order of its own, and an example another augmentation in every epoch.

    Raises:
      UserError: (while iterating) a picture is corrupt and `data.corrupt_images` is "stop".
    """
    views = (
        grain.MapDataset.range(len(source))
        .shuffle(seed=random_streams.stream_seed(seed, "order"))
        .repeat()
        .random_map(_RandomView(data), seed=random_streams.stream_seed(seed, "augmentation"))
    )
    return _read(views, _TrainingRenderer(source, data), runtime, share, steps)


def evaluation_batches(
    source: Source, data: Data, runtime: Runtime, share: Share
) -> Iterator[Batch]:
    """Every example once, in order, center crop; the last batch is padded and masked.

    Raises:
      UserError: (while iterating) a picture is corrupt and `data.corrupt_images` is "stop".
    """
    batches = evaluation_batch_count(source, share)
    views = grain.MapDataset.range(batches * share.batch_size).map(_CenterView(len(source), data))
    return _read(views, _Renderer(source, data), runtime, share, range(batches))


def annotated_batches(
    source: AnnotatedSource, data: Data, runtime: Runtime, share: Share, *, crops: int
) -> Iterator[AnnotatedBatch]:
    """Every example once, in order, with its name; the last batch is padded and masked.

    Example i is row i % b of global batch i // b, where b is the batch size. A corrupt picture is
    black, masked, and told, whatever `data.corrupt_images` is: the caller decides what becomes of it.

    Args:
      source: the test split.
      data: what is shown of a picture.
      runtime: who decodes.
      share: which part of every batch this process reads.
      crops: 1: the center crop, which is that of `evaluation_batches`; 5: `images.five_crops`.
    """
    batches = evaluation_batch_count(source, share)
    views = grain.MapDataset.range(batches * share.batch_size).map(_CenterView(len(source), data))
    return _read(views, _AnnotatedRenderer(source, data, crops), runtime, share, range(batches))


def evaluation_batch_count(source: Source, share: Share) -> int:
    """Global batches that cover `source`."""
    return -(-len(source) // share.batch_size)


def _read(
    views: grain.MapDataset,
    renderer: Callable[[Sequence["_View"]], _AnyBatch],
    runtime: Runtime,
    share: Share,
    steps: range,
) -> Iterator[_AnyBatch]:
    # Batch s·P + p of the local size is process p's share of the global batch of step s.
    first, end = (step * share.process_count for step in (steps.start, steps.stop))
    batches = views.batch(share.local_batch_size, batch_fn=renderer)[
        first + share.process_index : end : share.process_count
    ]
    threads = min(runtime.decode_threads, len(batches))
    iterable = batches.to_iter_dataset(
        grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=threads + _BATCHES_AHEAD_OF_THE_THREADS
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


class _View(NamedTuple):
    """What is to be shown of an example, before anything is read."""

    example: int | None  # of the example in the source; None: padding
    top: int = 0  # of the crop in the resized picture, in pixels
    left: int = 0
    symmetry: int = 0  # an element of `symmetries.turned`


class _RandomView:
    """Training: a random crop and a random flip (or one of the eight symmetries)."""

    def __init__(self, data: Data):
        self._margin = data.resize - data.crop
        self._dihedral = data.augmentation == "dihedral"

    def __call__(self, index: int, rng: np.random.Generator) -> _View:
        top = int(rng.integers(self._margin, endpoint=True))
        left = int(rng.integers(self._margin, endpoint=True))
        if self._dihedral:
            symmetry = rng.integers(symmetries.COUNT)
        else:
            symmetry = symmetries.MIRROR * rng.integers(2)
        return _View(index, top, left, int(symmetry))


class _CenterView:
    """Test: the center of example i, or padding where i is past the end."""

    def __init__(self, examples: int, data: Data):
        self._examples = examples
        self._offset = images.center_offset(data.resize, data.crop)

    def __call__(self, index: int) -> _View:
        return _View(index if index < self._examples else None, self._offset, self._offset)


class _Renderer:
    """Reads and decodes the views of a batch, each straight into its row.

    Stacking decoded pictures afterwards would go through memory twice more and cost a third of the
    speed.
    """

    def __init__(self, source: Source, data: Data):
        self._source = source
        self._where = f"data set {source.data_set}, split {source.split}"
        self._data = data

    def __call__(self, views: Sequence[_View]) -> Batch:
        cv2.setNumThreads(1)  # a batch is decoded by one thread, and there are several of those
        # All are read before the first is decoded: decoding drives the interpreter's code out of the
        # processor's caches, and reading would take twice the time after it.
        examples = [None if view.example is None else self._source[view.example] for view in views]
        size = self._data.crop
        batch = Batch(
            image=np.empty((len(views), size, size, 3), np.uint8),
            label=np.array([example.label if example else 0 for example in examples], np.int32),
            mask=np.array([example is not None for example in examples], np.bool_),
        )
        for row, (view, example) in enumerate(zip(views, examples, strict=True)):
            window = self._window(view, example) if example else None
            if window is None:
                batch["image"][row], batch["label"][row], batch["mask"][row] = 0, 0, False
            else:
                batch["image"][row] = window
        return batch

    def _window(self, view: _View, example: Example) -> images.Image | None:
        """uint8 `[crop, crop, 3]`, or None for a corrupt picture that is to be skipped."""
        data = self._data
        try:
            image = images.decode(example.encoded_image, cut_bottom=data.cut_bottom)
            return images.resize_and_crop(image, data.resize, view.top, view.left, data.crop)
        except images.ImageError as error:
            if self._data.corrupt_images == "skip":
                return None
            raise UserError(
                f"{self._where}: {example.name} {error}; replace the file and prepare the data set "
                "again, or leave such pictures out with --config.data.corrupt_images=skip"
            ) from error


class _TrainingRenderer(_Renderer):
    """Reads and decodes the views of a batch, and leaves their symmetries to the devices."""

    def __call__(self, views: Sequence[_View]) -> TrainingBatch:
        symmetry = np.array([view.symmetry for view in views], np.int32)
        return TrainingBatch(**super().__call__(views), symmetry=symmetry)


class _AnnotatedRenderer:
    """Reads and decodes the pictures of a test batch, and keeps what is known of them."""

    def __init__(self, source: AnnotatedSource, data: Data, crops: int):
        self._source = source
        self._data = data
        self._crops = crops

    def __call__(self, views: Sequence[_View]) -> AnnotatedBatch:
        cv2.setNumThreads(1)  # as in `_Renderer`, and so is the order of reading and decoding
        examples = [None if view.example is None else self._source[view.example] for view in views]
        count, size = len(views), self._data.crop
        batch = AnnotatedBatch(
            image=np.zeros((count, self._crops, size, size, 3), np.uint8),
            label=np.array([example.label if example else 0 for example in examples], np.int32),
            mask=np.array([example is not None for example in examples], np.bool_),
            parts=np.zeros((count, self._source.part_count, 3), np.float32),
            name=[example.name if example else "" for example in examples],
            problem=[""] * count,
        )
        for row, (view, example) in enumerate(zip(views, examples, strict=True)):
            if example is None:
                continue
            try:
                picture = images.decode(example.encoded_image, cut_bottom=self._data.cut_bottom)
            except images.ImageError as error:
                batch["mask"][row], batch["problem"][row] = False, str(error)
                continue
            batch["image"][row] = self._windows(view, picture)
            batch["parts"][row] = self._parts(view, picture, example)
        return batch

    def _windows(self, view: _View, picture: images.Image) -> images.Image:
        """uint8 `[V, crop, crop, 3]`."""
        data = self._data
        if self._crops == 1:
            window = images.resize_and_crop(picture, data.resize, view.top, view.left, data.crop)
            return window[None]
        return images.five_crops(images.resize(picture, data.resize), data.crop)

    def _parts(
        self, view: _View, picture: images.Image, example: Example
    ) -> npt.NDArray[np.float32]:
        """float32 `[P, 3]`: x and y in the center crop, and 1 where the part is visible there."""
        height, width = picture.shape[:2]
        x, y, visible = np.array(example.part_locations, np.float32).reshape(-1, 3).T
        # The center of pixel i is at i + ½ from the edge, before resizing and after it.
        x = (x + 0.5) * self._data.resize / width - 0.5 - view.left
        y = (y + 0.5) * self._data.resize / height - 0.5 - view.top
        end = self._data.crop - 0.5
        seen = (visible > 0) & (x >= -0.5) & (x < end) & (y >= -0.5) & (y < end)
        return np.stack([x, y, seen], -1).astype(np.float32)

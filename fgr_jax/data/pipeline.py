"""Batches of decoded images from an `ExampleSource`, read by Grain.

The stream of global batches is a function of the seed and the step alone. Threads, worker processes
and the number of training processes only decide where images are decoded: process p of P reads the p-th
contiguous share of the rows of every global batch.
"""

import dataclasses
import functools
import mmap
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, SupportsIndex, TypeVar, cast

import cv2
import grain
import numpy as np
import numpy.typing as npt

from fgr_jax import signals
from fgr_jax.config import Data, Runtime
from fgr_jax.data import images
from fgr_jax.data.augmentation import Place, View, random_view
from fgr_jax.data.balance import BalancedOrder, Visit
from fgr_jax.data.batch import AnnotatedBatch, Batch, TrainingBatch, ViewsBatch
from fgr_jax.data.pairs import PairedOrder
from fgr_jax.data.source import Example
from fgr_jax.errors import UserError
from fgr_jax.random_streams import Stream, stream_seed


class Source(Protocol):
    """The part of a data set's interface that the pipeline uses."""

    data_set: str
    split: str
    part_count: int  # annotated in every image; 0: no annotations

    def __len__(self) -> int: ...
    def __getitem__(self, index: SupportsIndex) -> Example: ...


_AnyBatch = TypeVar("_AnyBatch", Batch, TrainingBatch, ViewsBatch, AnnotatedBatch)

_SHARED_MEMORY = Path("/dev/shm")
_NO_WORKERS = "--config.runtime.decode_workers=0 decodes in the training process"
# In shared memory, measured with a slow reader: in Grain's queue, beside it, and being removed.
_BATCHES_PER_WORKER = 4
_MORE_SHARED_MEMORY = f"give {_SHARED_MEMORY} more (docker run --shm-size=8g), or {_NO_WORKERS}"


class WorkerError(UserError):
    """A worker process cannot deliver batches; everything computed before is still right."""


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """The share of every global batch that this process reads."""

    batch_size: int  # of the global batch
    process_index: int = 0
    process_count: int = 1

    @property
    def local_batch_size(self) -> int:
        return self.batch_size // self.process_count


def training_batches(
    source: Source,
    data: Data,
    runtime: Runtime,
    share: Share,
    *,
    seed: int,
    steps: range,
    padding: images.Color | None = None,
    labels: npt.NDArray[np.integer] | None = None,
) -> Iterator[TrainingBatch]:
    """Yields the shuffled, augmented batches of `steps`; the first step of a run is step 0.

    Every epoch has its own order, and an example is augmented differently at each of its visits.
    `padding` is as for `images.crops_at`, here and in the other functions. `labels` are those of all
    examples of `source`, `[N]`; they are needed where `data.balance` is not 0, and with `data.pairs`.

    Raises:
      UserError: (while iterating) an image is corrupt and `data.corrupt_images` is "stop".
      WorkerError: shared memory is too small, or (while iterating) a worker process died.
    """
    order = visits(
        len(source), data.balance, labels, share, seed=seed, steps=steps, pairs=data.pairs
    )
    views = order.random_map(
        functools.partial(_view_of_visit, data), seed=stream_seed(seed, Stream.AUGMENTATION)
    )
    render = functools.partial(_render, TrainingBatch, source, data, padding)
    batches = batches_of(views, render, share, steps)
    # Twice, since the batches of the evaluation are there at the same time.
    return _read(batches, runtime, 2 * _batch_bytes(data, share))


def evaluation_batches(
    source: Source,
    data: Data,
    runtime: Runtime,
    share: Share,
    *,
    rounds: int | None = 1,
    padding: images.Color | None = None,
) -> Iterator[Batch]:
    """Yields the center crop of every example once, in order; the last batch is padded and masked.

    Args:
      rounds: how often to begin again after the last batch; None: without an end. Threads and worker
        processes are started once.

    Raises:
      UserError, WorkerError: as for `training_batches`.
    """
    return _read_in_order(Batch, source, data, runtime, share, padding, crops=1, rounds=rounds)


def annotated_batches(
    source: Source,
    data: Data,
    runtime: Runtime,
    share: Share,
    *,
    crops: int,
    padding: images.Color | None = None,
) -> Iterator[AnnotatedBatch]:
    """Yields every example once, in order, with its name; the last batch is padded and masked.

    Example i is row i % b of global batch i // b, where b is the batch size. A corrupt image is black
    and masked, and its problem is stated, whatever `data.corrupt_images` is: the caller decides.

    Args:
      crops: 1: the center crop, which is that of `evaluation_batches`; 5: `images.test_crops`.

    Raises:
      WorkerError: as for `training_batches`.
    """
    return _read_in_order(
        AnnotatedBatch, source, data, runtime, share, padding, crops=crops, rounds=1
    )


def views_batches(
    source: Source,
    data: Data,
    runtime: Runtime,
    batches: Sequence[Sequence[int | None]],
    view_of: Callable[[int], View],
    *,
    padding: images.Color | None = None,
) -> Iterator[ViewsBatch]:
    """Yields given batches of images in several views; every image is decoded once.

    Args:
      source: the images.
      data: how they are decoded and cropped.
      runtime: the threads and worker processes.
      batches: the images of each batch, and None for padding, which is black and masked.
      view_of: maps the index of an image to its views; all have equally many.

    Raises:
      UserError, WorkerError: as for `training_batches`.
    """
    if not batches:
        return iter(())
    size = len(batches[0])
    indices = [-1 if image is None else image for batch in batches for image in batch]
    views = grain.MapDataset.source(indices).map(functools.partial(_view_or_padding, view_of))
    render = functools.partial(_render, ViewsBatch, source, data, padding)
    crops = len(view_of(indices[0]).places)
    share = Share(size)
    return _read(
        batches_of(views, render, share, range(len(batches))),
        runtime,
        crops * _batch_bytes(data, share),
    )


def evaluation_batch_count(source: Source, share: Share) -> int:
    """Returns the number of global batches that cover `source`."""
    return -(-len(source) // share.batch_size)


def _read_in_order(
    kind: type[_AnyBatch],
    source: Source,
    data: Data,
    runtime: Runtime,
    share: Share,
    padding: images.Color | None,
    *,
    crops: int,
    rounds: int | None,
) -> Iterator[_AnyBatch]:
    count = evaluation_batch_count(source, share)
    places = images.test_places(crops)
    views = in_order(len(source), share).map(functools.partial(_test_view, places))
    render = functools.partial(_render, kind, source, data, padding)
    batches = batches_of(views, render, share, range(count)).repeat(rounds, reseed_each_epoch=False)
    return _read(batches, runtime, crops * _batch_bytes(data, share))


def _view_of_visit(data: Data, visit: Visit, generator: np.random.Generator) -> View:
    return random_view(data, visit.example, generator)


def _test_view(places: tuple[Place, ...], index: int) -> View:
    return View(None if index < 0 else index, places)


def _view_or_padding(view_of: Callable[[int], View], index: int) -> View:
    return view_of(0)._replace(example=None) if index < 0 else view_of(index)


def shuffled(examples: int, share: Share, *, seed: int, steps: range) -> grain.MapDataset:
    """Returns the indices of the examples that `steps` train on, in the order of each epoch."""
    order = grain.MapDataset.range(examples).shuffle(seed=stream_seed(seed, Stream.ORDER))
    # The number of epochs is given: in Grain, batches of one of an endless data set overflow.
    return order.repeat(-(-steps.stop * share.batch_size // examples))


def visits(
    examples: int,
    balance: float,
    labels: npt.NDArray[np.integer] | None,
    share: Share,
    *,
    seed: int,
    steps: range,
    pairs: bool = False,
) -> grain.MapDataset:
    """Returns the visits of examples that `steps` train on, as functions of the seed and the position.

    Args:
      examples: their number, N, which is also the number of visits in an epoch.
      balance: 0: every example is visited once in an epoch, in the order of `shuffled`; otherwise as
        for `BalancedOrder`.
      labels: `[N]`, or None if `balance` is 0 and `pairs` false.
      share: the share of every global batch that this process reads.
      seed: of the run.
      steps: the steps to take.
      pairs: whether the visits 2i and 2i + 1 are of one class, as in `PairedOrder`.
    """
    if not (balance or pairs):
        order = shuffled(examples, share, seed=seed, steps=steps)
        return order.map_with_index(functools.partial(_natural_visit, examples))
    if labels is None or len(labels) != examples:
        raise ValueError("this order needs the label of every example")
    if pairs:
        positions = steps.stop * share.batch_size
        return grain.MapDataset.source(PairedOrder(labels, seed=seed, positions=positions))
    epochs = -(-steps.stop * share.batch_size // examples)
    return grain.MapDataset.source(BalancedOrder(labels, balance, seed=seed, epochs=epochs))


def _natural_visit(examples: int, position: int, example: int) -> Visit:
    return Visit(example, position // examples)


def in_order(examples: int, share: Share) -> grain.MapDataset:
    """Returns the indices of the examples in order, followed by -1 up to whole global batches."""
    count = -(-examples // share.batch_size) * share.batch_size
    return grain.MapDataset.range(count).map(lambda index: index if index < examples else -1)


def batches_of(
    rows: grain.MapDataset, batch: Callable[[Sequence[Any]], Any], share: Share, steps: range
) -> grain.MapDataset:
    """Returns this process's share of the global batch of each step, made by `batch` of its rows."""
    # Batch s·P + p of the local size is process p's share of the global batch of step s.
    first, end = (step * share.process_count for step in (steps.start, steps.stop))
    return rows.batch(share.local_batch_size, batch_fn=batch)[
        first + share.process_index : end : share.process_count
    ]


def _batch_bytes(data: Data, share: Share) -> int:
    """Returns the size in bytes of one crop of every image of a local batch."""
    return share.local_batch_size * data.crop**2 * 3


def read_in_threads(batches: grain.MapDataset, threads: int) -> Any:
    """Returns an iterable of the batches, which `threads` threads make ahead of time."""
    threads = min(threads, len(batches))
    # One batch is ready in addition to those that the threads are making.
    return batches.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
    )


def _read(batches: grain.MapDataset, runtime: Runtime, batch_bytes: int) -> Iterator[Any]:
    iterable = read_in_threads(batches, runtime.decode_threads)
    workers = min(runtime.decode_workers, len(batches))
    if not workers:
        return iter(iterable)
    _check_shared_memory(workers, batch_bytes)
    iterable = iterable.mp_prefetch(
        grain.MultiprocessingOptions(num_workers=workers), worker_init_fn=_end_with_the_parent
    )
    return _FromWorkers(iter(iterable))


class _FromWorkers(Generic[_AnyBatch]):
    """The batches that worker processes decode, with an error of one line where a process died."""

    def __init__(self, batches: Iterator[_AnyBatch]):
        self._batches: Iterator[_AnyBatch] = batches
        self._are_started = False

    def __iter__(self) -> Iterator[_AnyBatch]:
        return self

    def __next__(self) -> _AnyBatch:
        try:
            if self._are_started:
                return next(self._batches)
            # Grain starts the processes here. They inherit the blocked signals, which a terminal or a
            # job scheduler sends to all processes: the training process handles them.
            with signals.blocked():
                batch = next(self._batches)
            self._are_started = True
            return batch
        except RuntimeError as error:
            status = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
            if status is None:
                raise
            raise WorkerError(_cause_of_death(int(status.group(1)))) from error


def _end_with_the_parent(_worker: int, _workers: int) -> None:
    """Ends the worker process when the training process ends, even if that was killed."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _cause_of_death(status: int) -> str:
    """Explains the exit status of a worker process; -n is signal n."""
    if status == -signal.SIGBUS:
        return f"a decoding process found {_SHARED_MEMORY} full (SIGBUS): {_MORE_SHARED_MEMORY}"
    if status == -signal.SIGKILL:
        cause = "was killed (SIGKILL), as the system does when memory is short"
    elif status < 0:
        cause = f"was ended by {signal.Signals(-status).name}"
    else:
        cause = f"ended with status {status}"
    return f"a decoding process {cause}: start fewer, or {_NO_WORKERS}"


def _check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Checks that the batches of worker processes, which they pass in shared memory, fit there."""
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free
    except OSError:  # not on this system
        return
    in_flight = workers * _BATCHES_PER_WORKER + 1
    pages = -(-batch_bytes // mmap.PAGESIZE)
    if free < (needed := in_flight * pages * mmap.PAGESIZE):
        raise WorkerError(
            f"--config.runtime.decode_workers={workers}: needs {needed / 1e6:,.1f} MB in "
            f"{_SHARED_MEMORY}, where {free / 1e6:,.1f} MB are free: {_MORE_SHARED_MEMORY}"
        )


def _render(
    kind: type[_AnyBatch],
    source: Source,
    data: Data,
    padding: images.Color | None,
    views: Sequence[View],
) -> _AnyBatch:
    """Reads and decodes the views of a batch, each straight into its row.

    Stacking decoded images afterwards would go through memory twice more and cost a third of the
    speed.
    """
    cv2.setNumThreads(1)  # a batch is decoded by one thread, and there are several of those
    # All are read before the first is decoded: decoding evicts the interpreter's code from the
    # processor's caches, after which reading would take twice as long.
    examples = [None if view.example is None else source[view.example] for view in views]
    annotated, all_views = kind is AnnotatedBatch, kind in (AnnotatedBatch, ViewsBatch)
    count, crops, size = len(views), len(views[0].places), data.crop
    image = np.empty((count, crops, size, size, 3), np.uint8)
    label = np.array([example.label if example else 0 for example in examples], np.int32)
    mask = np.array([example is not None for example in examples], np.bool_)
    parts = np.zeros((count, source.part_count, 3), np.float32)
    problem = [""] * count
    for row, (view, example) in enumerate(zip(views, examples, strict=True)):
        if example is None:
            image[row] = 0
            continue
        try:
            decoded = images.decode(
                example.encoded_image,
                cut_bottom=data.cut_bottom,
                max_pixels=data.max_pixels,
                checked=True,  # by preparation
            )
            image[row] = images.crops_at(decoded, data, view.places, padding)
            for crop, distortion in zip(image[row], view.distortions, strict=False):
                crop[:] = images.distorted(crop, distortion)
        except images.ImageError as error:
            if not annotated and data.corrupt_images == "stop":
                name = f"data set {source.data_set}, split {source.split}: {example.name}"
                way_out = (
                    "prepare the data set again with the fields of this run"
                    if "--config." in str(error)  # preparation accepted the image with other fields
                    else "replace the file and prepare the data set again"
                )
                raise UserError(
                    f"{name} {error}; {way_out}, or leave such images out with "
                    "--config.data.corrupt_images=skip"
                ) from error
            image[row], mask[row], problem[row] = 0, False, str(error)
            if not annotated:
                label[row] = 0
            continue
        if annotated:
            parts[row] = _parts(view, decoded, example, data)
    symmetry = np.array([view.symmetries for view in views], np.int32)
    fields = {
        "image": image if all_views else image[:, 0],
        "label": label,
        "mask": mask,
        "symmetry": symmetry if all_views else symmetry[:, 0],
        "parts": parts,
        "name": [example.name if example else "" for example in examples],
        "problem": problem,
    }
    return cast(_AnyBatch, {name: fields[name] for name in kind.__annotations__})


def _parts(
    view: View, image: images.Image, example: Example, data: Data
) -> npt.NDArray[np.float32]:
    """Returns `[P, 3]`: x and y in pixels of the center crop, and 1 if the part is visible there."""
    height, width = image.shape[:2]
    canvas = images.Canvas.of(data, height, width)
    top, left = canvas.offset(view.places[-1])
    x, y, visible = np.array(example.part_locations, np.float32).reshape(-1, 3).T
    x = canvas.horizontal.in_crop(x, width, left)
    y = canvas.vertical.in_crop(y, height, top)
    end = data.crop - 0.5
    inside = (visible > 0) & (x >= -0.5) & (x < end) & (y >= -0.5) & (y < end)
    return np.stack([x, y, inside], -1).astype(np.float32)

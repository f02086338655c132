"""Computes the features of a split that are not in its folder yet, on all devices and processes."""

import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from fgr_jax import distributed
from fgr_jax.config import Config
from fgr_jax.data.augmentation import View, turned
from fgr_jax.data.batch import ViewsBatch
from fgr_jax.data.pipeline import Source, views_batches
from fgr_jax.data.prepare.listing import counted
from fgr_jax.errors import UserError
from fgr_jax.features.description import Description
from fgr_jax.features.store import Shard, Store, Writer, try_lock
from fgr_jax.models.network import Network, frozen_output
from fgr_jax.terminal import Terminal

_POLL_S = 0.2

# uint8 `[R, H, W, 3]` and int32 `[R]` to the leaves `[R, ...]` of the features, and whether all values
# are finite.
Compute = Callable[[Any, Any], tuple[list[jax.Array], jax.Array]]


def compute_missing(
    store: Store,
    config: Config,
    network: Network,
    variables: Any,
    source: Source,
    view_of: Callable[[int], View],
    mesh: Mesh,
    terminal: Terminal,
) -> None:
    """Computes the shards that are missing in `store`, while no other job does.

    Each process of the job computes shards of its own on its own devices, in batches of the same size
    and content whatever the number of devices and processes.

    Args:
      store: the folder and what belongs in it.
      config: the run.
      network: its network, with a frozen part.
      variables: its variables, replicated over the devices.
      source: the images of the split.
      view_of: maps the index of an image to its views.
      mesh: the devices of the job.
      terminal: shows the progress.

    Raises:
      UserError: an image is corrupt, or the features do not fit into their dtype.
      Stopped: the processes of the job are asked to stop.
    """
    lock = _locked(store, terminal)
    store.folder.mkdir(parents=True, exist_ok=True)  # where the processes have folders of their own
    try:
        distributed.once_for_all(store.write_description)
        missing = _agreed_missing(store)
        if missing:
            _compute(store, missing, config, network, variables, source, view_of, mesh, terminal)
        distributed.agreed_integer(0)  # all of them are done before the lock is released
    finally:
        if lock is not None:
            os.close(lock)


def _locked(store: Store, terminal: Terminal) -> int | None:
    """Waits for the lock, which process 0 takes for all."""
    for attempt in itertools.count():
        lock = None
        if jax.process_index() == 0:
            store.folder.mkdir(parents=True, exist_ok=True)
            lock = try_lock(store.folder)
        if distributed.agreed_integer(lock is not None):
            return lock
        if attempt == 0:
            terminal.line(f"waiting for another process that computes features in {store.folder}")
        distributed.stop_if_preempted()
        time.sleep(_POLL_S)
    raise AssertionError


def _agreed_missing(store: Store) -> list[int]:
    """Returns the shards that process 0 does not find."""
    is_missing = np.zeros(len(store.description.shards), np.bool_)
    is_missing[store.missing()] = True
    return [int(each) for each in np.flatnonzero(multihost_utils.broadcast_one_to_all(is_missing))]


def _compute(
    store: Store,
    missing: list[int],
    config: Config,
    network: Network,
    variables: Any,
    source: Source,
    view_of: Callable[[int], View],
    mesh: Mesh,
    terminal: Terminal,
) -> None:
    about = store.description
    local = distributed.data_mesh(
        [each for each in mesh.devices.flat if each.process_index == jax.process_index()]
    )
    rows = -(-about.batch_images * about.views // local.size) * local.size
    compute = _compiled(about, network, variables, local)
    processes, index = jax.process_count(), jax.process_index()
    mine = [about.shards[number] for number in missing[index::processes]]
    batch_counts = [-(-len(images) // about.batch_images) for images in mine]
    shards = _padded(mine, about)
    batches = views_batches(
        source, config.data, config.runtime, shards, view_of, padding=network.padding
    )

    seconds = _seconds_per_batch(compute, rows, config.data.crop)
    rounds = -(-len(missing) // processes)
    minutes = max(1, round(sum(batch_counts) * seconds / 60))
    terminal.line(f"features  {about} in {store.folder}, about {counted(minutes, 'minute')}")
    outputs = _outputs(compute, batches, rows)
    views_per_batch = about.batch_images * about.views * processes
    with (
        terminal.bar(
            "computing features", sum(batch_counts), unit="images", per=views_per_batch
        ) as bar,
        Writer(store) as writer,
    ):
        done = 0
        # In every round, each process computes one shard. All ask equally often whether to stop.
        for turn in range(rounds):
            images = mine[turn] if turn < len(mine) else range(0)
            buffer, error = _buffer(about, len(images)), None
            try:
                for start in range(0, about.shard_images, about.batch_images):
                    distributed.stop_if_preempted()
                    if start < len(images):
                        _fill(buffer, start, about, *next(outputs))
                        done += 1
                        bar.update(done)
                if len(images):
                    writer.write(missing[turn * processes + index], buffer)
                if turn == rounds - 1:
                    writer.wait()
            except (UserError, OSError) as raised:
                error = raised
            if distributed.agreed_maximum(int(error is not None)):
                raise error or UserError("another process could not compute its features")


def _compiled(about: Description, network: Network, variables: Any, local: Mesh) -> Compute:
    """Compiles the frozen part for the devices of this process."""
    variables = jax.device_put(jax.device_get(variables), distributed.replicated(local))
    by_row = PartitionSpec("batch")

    @jax.jit
    @functools.partial(
        jax.shard_map,
        mesh=local,
        in_specs=(PartitionSpec(), by_row, by_row),
        out_specs=(by_row, by_row),
    )
    def run(variables: Any, images: jax.Array, symmetries: jax.Array) -> Any:
        leaves = jax.tree.leaves(frozen_output(network, variables, turned(images, symmetries)))
        stored = [leaf.astype(kind) for leaf, kind in zip(leaves, about.dtypes, strict=True)]
        finite = [jnp.all(jnp.isfinite(leaf)) for leaf in stored]
        return stored, jnp.all(jnp.stack(finite))[None]

    sharding = distributed.batch_sharding(local)

    def compute(images: Any, symmetries: Any) -> Any:
        return run(variables, *jax.device_put((images, symmetries), sharding))

    return compute


def _seconds_per_batch(compute: Compute, rows: int, crop: int) -> float:
    """Compiles and measures the computation of a batch."""
    images, symmetries = np.zeros((rows, crop, crop, 3), np.uint8), np.zeros(rows, np.int32)
    jax.block_until_ready(compute(images, symmetries))
    started = time.perf_counter()
    jax.block_until_ready(compute(images, symmetries))
    return time.perf_counter() - started


def _outputs(
    compute: Compute, batches: Iterator[ViewsBatch], rows: int
) -> Iterator[tuple[ViewsBatch, list[npt.NDArray[Any]]]]:
    """Yields each batch with its features; the devices compute the next batch meanwhile."""

    def started(batch: ViewsBatch) -> tuple[ViewsBatch, Any]:
        images, symmetries = batch["image"], batch["symmetry"]
        images = images.reshape(-1, *images.shape[2:])
        padding = rows - len(images)
        if padding:
            images = np.pad(images, [(0, padding), (0, 0), (0, 0), (0, 0)])
        return batch, compute(images, np.pad(symmetries.ravel(), (0, padding)))

    pending = None
    for batch in itertools.chain(batches, [None]):
        previous, pending = pending, None if batch is None else started(batch)
        if previous is None:
            continue
        leaves, finite = jax.device_get(previous[1])
        if not finite.all():
            raise UserError(
                "a feature is NaN, infinite or too large for "
                f"{leaves[0].dtype}: --config.data.features_dtype=bfloat16 has the range of float32"
            )
        yield previous[0], leaves


def _padded(shards: list[range], about: Description) -> list[list[int | None]]:
    """Returns the images of each batch; those of a shard's last batch are filled up with None."""
    size = about.batch_images
    batches: list[list[int | None]] = []
    for images in shards:
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            batches.append([*batch, *[None] * (size - len(batch))])
    return batches


def _buffer(about: Description, count: int) -> Shard:
    leaves = [
        np.empty((count, about.views, *shape), jnp.dtype(kind))
        for shape, kind in zip(about.shapes, about.dtypes, strict=True)
    ]
    return Shard(leaves, np.zeros(count, np.int32), np.zeros(count, np.bool_))


def _fill(
    buffer: Shard, start: int, about: Description, batch: ViewsBatch, leaves: list[npt.NDArray[Any]]
) -> None:
    """Copies the features of a batch into the rows of the buffer from `start` on."""
    count = min(about.batch_images, len(buffer.label) - start)
    images = slice(start, start + count)
    buffer.label[images], buffer.mask[images] = batch["label"][:count], batch["mask"][:count]
    for ours, leaf in zip(buffer.leaves, leaves, strict=True):
        rows = leaf[: count * about.views]
        ours[images] = rows.reshape(count, about.views, *leaf.shape[1:])

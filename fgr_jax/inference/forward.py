"""The forward pass of a trained network on batches of images, sharded over the devices of a mesh."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, PartitionSpec

from fgr_jax.distributed import data_mesh, replicated, rows_to_devices
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.network import forward

# Arrays with one row per image. "image" is uint8 `[B, H, W, 3]`, or `[B, V, H, W, 3]` for V crops of
# each image.
HostBatch = Mapping[str, npt.NDArray[Any]]
DeviceBatch = Mapping[str, jax.Array]

# Of the whole network: runs on cached features have batches for which it is too large.
IMAGES_PER_DEVICE = 16

_Note = TypeVar("_Note")


def on_this_process(trained: TrainedNetwork, mesh: Mesh) -> tuple[TrainedNetwork, Mesh]:
    """Returns the network on those devices of `mesh` that are of this process, and their mesh."""
    ours = [each for each in mesh.devices.flat if each.process_index == jax.process_index()]
    local = data_mesh(ours)
    variables = jax.device_put(jax.device_get(trained.variables), replicated(local))
    return dataclasses.replace(trained, variables=variables), local


def compiled(
    trained: TrainedNetwork, mesh: Mesh, select: Callable[[Outputs, DeviceBatch], Any]
) -> Callable[[DeviceBatch | HostBatch], Any]:
    """Compiles the forward pass followed by `select`.

    Args:
      trained: the network; its variables are replicated over `mesh`.
      mesh: the devices. Each applies the network and `select` to its own rows.
      select: maps the outputs, which have B or B·V rows, and the batch to arrays of B rows. Only these
        leave the devices.

    Returns:
      A function of a batch, which may be of the host where one process has all devices. Its results are
      replicated, so that every process has all rows.
    """

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("batch")),
        out_specs=PartitionSpec("batch"),
    )
    def run(variables: Any, batch: DeviceBatch) -> Any:
        images = batch["image"]
        flat = images.reshape(-1, *images.shape[-3:])
        return select(forward(trained.network, variables, flat), batch)

    return functools.partial(run, trained.variables)


def stream(
    run: Callable[[DeviceBatch], Any], batches: Iterable[tuple[_Note, HostBatch]], mesh: Mesh
) -> Iterator[tuple[_Note, Any]]:
    """Yields the result of `run` for each batch, as NumPy arrays, with the note of that batch.

    The host stays one batch ahead: while the devices compute a batch, the caller uses the previous
    results and the next batch is assembled.

    Args:
      run: the result of `compiled`.
      batches: pairs of a note, which is passed through, and this process's rows of a batch.
      mesh: as for `compiled`.
    """
    pending: tuple[_Note, Any] | None = None
    for note, batch in batches:
        previous, pending = pending, (note, run(rows_to_devices(mesh, batch)))
        if previous is not None:
            yield previous[0], jax.device_get(previous[1])
    if pending is not None:
        yield pending[0], jax.device_get(pending[1])


def maps_of(maps: jax.Array, classes: jax.Array) -> jax.Array:
    """Selects the maps of K classes in each image: `[B, h, w, C]` and `[B, K]` to `[B, K, h, w]`."""
    chosen = jnp.take_along_axis(maps, classes[:, None, None, :], axis=-1)
    return jnp.moveaxis(chosen, -1, 1)


def most_probable(outputs: Outputs, top: int) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Returns the `top` most probable classes, their probabilities, and their maps where there are any.

    Returns:
      Classes and probabilities `[B, top]`, the most probable first, and maps `[B, top, h, w]` or None.
    """
    probabilities, classes = jax.lax.top_k(jax.nn.softmax(outputs.scores), top)
    maps = None if outputs.maps is None else maps_of(outputs.maps, classes)
    return classes, probabilities, maps


def padded(rows: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
    """Pads `rows` with zeros to `count` rows, so that the last batch has the shape of the others."""
    if len(rows) == count:
        return rows
    return np.pad(rows, [(0, count - len(rows))] + [(0, 0)] * (rows.ndim - 1))

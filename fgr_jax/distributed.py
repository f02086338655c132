"""Devices and processes: determinism, the mesh of a run, and the processes of a job.

A job is one or several processes that train one network, each with its own devices.
"""

import functools
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fgr_jax import signals
from fgr_jax.errors import UserError

_Result = TypeVar("_Result")

# Kernels sum in a fixed order and are not selected by timing candidates. The flag has no effect on CPUs
# and TPUs.
DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops="

_JAX_GRACE_S = 60  # JAX waits this much longer than we do, so that our error is the one shown
_MESSAGE_BYTES = 2048  # of an error that process 0 sends to the others
_preemption_checks = itertools.count(1)


def compute_deterministically(wanted: bool) -> None:
    """Makes XLA use deterministic kernels on GPUs, or lets it choose.

    Must be called before JAX initializes a device, which is when XLA reads its flags. A flag that the
    user has set in XLA_FLAGS is left unchanged.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC_FLAG}{str(wanted).lower()}".strip()


def chosen(count: int) -> list[jax.Device]:
    """Returns the first `count` devices, or all of them where `count` is 0.

    Raises:
      UserError: there are fewer devices, or `count` is set with several processes.
    """
    devices = jax.devices()
    if count and jax.process_count() > 1:
        message = f"--config.runtime.devices={count}: with several processes all devices are used"
        raise UserError(message)
    if count > len(devices):
        raise UserError(f"--config.runtime.devices={count}: there are {len(devices)} here")
    return devices[: count or len(devices)]


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with one axis, "batch", over `devices`, by default those of all processes.

    The devices of a process are adjacent: only in this order are the rows of process p the p-th share of
    the global batch.
    """
    devices = jax.devices() if devices is None else devices
    in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(in_order), ("batch",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array whose rows, axis 0, are spread over the devices."""
    return NamedSharding(mesh, PartitionSpec("batch"))


def rows_to_devices(mesh: Mesh, rows: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Spreads arrays, or trees of them, over the devices by their rows.

    Each process passes its own share of the rows.
    """
    spread = functools.partial(jax.make_array_from_process_local_data, batch_sharding(mesh))
    return {name: jax.tree.map(spread, values) for name, values in rows.items()}


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that is replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shapes_everywhere(mesh: Mesh, shapes: Any) -> Any:
    """Returns the shapes and dtypes of a tree, of arrays that are replicated on every device."""
    everywhere = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere), shapes
    )


def join(coordinator: str | None, count: int | None, index: int | None, *, timeout_s: int) -> None:
    """Joins the processes of a job. Must be called before JAX initializes a device.

    If the others do not join in time, the process ends with an error line and status 1.

    Args:
      coordinator: HOST:PORT of process 0. None, like the next two: detected, on Cloud TPU VMs, under
        Slurm and under Open MPI.
      count: the number of processes.
      index: the number of this process, from 0.
      timeout_s: how long to wait for the others, in seconds.

    Raises:
      UserError: the arguments are inconsistent, or the cluster gives no address.
    """
    given = [value is not None for value in (coordinator, count, index)]
    if any(given) and not all(given):
        raise UserError(
            "--coordinator, --process_count and --process_id go together: give all three, or "
            "--distributed alone on Cloud TPU VMs and under Slurm"
        )
    if count is not None and index is not None and not 0 <= index < count:
        raise UserError(f"--process_id={index}: must be from 0 to {count - 1}")
    address = coordinator or "the address that this machine's cluster gives"
    explanation = (
        f"the {count or ''} processes of the job did not come together at {address} within "
        f"{timeout_s} s: start all of them, with the same --coordinator and --process_count"
    )
    # When its own timeout expires, JAX aborts the process with a stack trace.
    watchdog = threading.Timer(timeout_s, _give_up, [explanation])
    watchdog.daemon = True
    watchdog.start()
    try:
        jax.distributed.initialize(
            coordinator, count, index, initialization_timeout=timeout_s + _JAX_GRACE_S
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{explanation} ({reason})") from error
    finally:
        watchdog.cancel()


def _give_up(explanation: str) -> None:
    print(f"error: {explanation}", file=sys.stderr, flush=True)
    os._exit(1)


def once_for_all(call: Callable[[], _Result]) -> _Result | None:
    """Calls `call` on process 0 alone, while the others wait.

    Returns:
      On process 0 the result of `call`, on the others None.

    Raises:
      UserError: on every process, if `call` raised it on process 0.
    """
    if jax.process_count() == 1:
        return call()
    result = error = None
    if jax.process_index() == 0:
        try:
            result = call()
        except UserError as raised:
            error = raised
    message = str(error or "").encode()[:_MESSAGE_BYTES].ljust(_MESSAGE_BYTES, b"\0")
    buffer = np.frombuffer(message, np.uint8)
    received = bytes(multihost_utils.broadcast_one_to_all(buffer)).rstrip(b"\0")
    if error is not None:
        raise error
    if received:
        lines = received.decode(errors="ignore").split("\n  ")
        raise UserError(f"process 0: {lines[0]}", *lines[1:])
    return result


def agreed_integer(value: int) -> int:
    """Returns process 0's `value` on every process."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def agreed_maximum(value: int) -> int:
    """Returns the largest `value` of all processes on every process."""
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def preemption_is_due() -> bool:
    """Returns whether all processes must stop now, since one received SIGTERM.

    Every process must call this at the same places; all get the same result.
    """
    if jax.process_count() == 1:
        return False
    return bool(multihost_utils.reached_preemption_sync_point(next(_preemption_checks)))


def stop_if_preempted() -> None:
    """Stops all processes if one received SIGTERM; for work that has nothing to save.

    Raises:
      Stopped: on every process.
    """
    if preemption_is_due():
        leave()
        raise signals.Stopped(signal.SIGTERM)


def leave() -> None:
    """Waits for the other processes of the job and leaves it; a no-op for a single process."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()

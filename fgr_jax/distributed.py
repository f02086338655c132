"""Devices and processes: the mesh a run is spread over, and arithmetic that repeats.

A job is one process or several that train one network, each with devices of its own.
"""

import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fgr_jax.errors import UserError

_Result = TypeVar("_Result")
_AFTER_OURS = 60  # seconds
_MESSAGE_BYTES = 2048  # of an error that process 0 tells the others
# Kernels that add up in a fixed order, and none chosen by a race between candidates. CPUs and TPUs do
# not look at it.
DETERMINISTIC_FLAG = "--xla_gpu_deterministic_ops="


def compute_deterministically(wanted: bool) -> None:
    """Has XLA use deterministic kernels on GPUs, or not; to be called before a device is asked for.

    XLA reads its flags once, when the first device is asked for. A flag that the person has set in
    XLA_FLAGS stays as it is.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC_FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC_FLAG}{str(wanted).lower()}".strip()


def chosen(count: int) -> list[jax.Device]:
    """The first `count` devices; 0: all.

    Raises:
      UserError: there are fewer, or several processes have to share them.
    """
    devices = jax.devices()
    if count and jax.process_count() > 1:
        raise UserError(
            f"--config.runtime.devices={count}: with several processes all devices are used"
        )
    if count > len(devices):
        raise UserError(f"--config.runtime.devices={count}: there are {len(devices)} here")
    return devices[: count or len(devices)]


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis, "batch", over all devices of all processes, those of a process together.

    In this order, and in no other, process p's rows are the p-th share of the global batch.
    """
    devices = jax.devices() if devices is None else devices
    in_order = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(in_order), ("batch",), axis_types=(AxisType.Auto,))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of the batch, spread over the devices."""
    return NamedSharding(mesh, PartitionSpec("batch"))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def join(coordinator: str | None, count: int | None, index: int | None, *, timeout_s: int) -> None:
    """Makes this process one of a job; to be called before any device is asked for.

    Args:
      coordinator: HOST:PORT of process 0. None, like the other two: found by itself on Cloud TPU VMs,
        under Slurm and under Open MPI.
      count: how many processes there are.
      index: which of them this is, from 0.
      timeout_s: how long to wait for the others, in seconds.

    Where the others do not come in time, the process ends with an error line and status 1.

    Raises:
      UserError: the arguments contradict themselves, or the cluster gives no address.
    """
    given = [value is not None for value in (coordinator, count, index)]
    if any(given) and not all(given):
        raise UserError(
            "--coordinator, --process_count and --process_id go together: give all three, or "
            "--distributed alone on Cloud TPU VMs and under Slurm"
        )
    if count is not None and index is not None and not 0 <= index < count:
        raise UserError(f"--process_id={index}: must be from 0 to {count - 1}")
    where = coordinator or "the address that this machine's cluster gives"
    explanation = (
        f"the {count or ''} processes of the job did not come together at {where} within {timeout_s} s: "
        "start all of them, with the same --coordinator and --process_count"
    )
    # JAX aborts the process, with a stack trace, where its own time is up: ours is up first.
    watch = threading.Timer(timeout_s, _give_up, [explanation])
    watch.daemon = True
    watch.start()
    try:
        jax.distributed.initialize(
            coordinator, count, index, initialization_timeout=timeout_s + _AFTER_OURS
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{explanation} ({reason})") from error
    finally:
        watch.cancel()


def _give_up(explanation: str) -> None:
    print(f"error: {explanation}", file=sys.stderr, flush=True)
    os._exit(1)


def once_for_all(call: Callable[[], _Result]) -> _Result | None:
    """Calls `call` on process 0 alone; the others wait, and get None.

    Raises:
      UserError: on every process, where `call` raised it on process 0.
    """
    if jax.process_count() == 1:
        return call()
    result, message = None, b""
    error: UserError | None = None
    if jax.process_index() == 0:
        try:
            result = call()
        except UserError as raised:
            error, message = raised, str(raised).encode()[:_MESSAGE_BYTES]
    buffer = np.zeros(_MESSAGE_BYTES, np.uint8)
    buffer[: len(message)] = np.frombuffer(message, np.uint8)
    told = bytes(multihost_utils.broadcast_one_to_all(buffer)).rstrip(b"\0")
    if error is not None:
        raise error
    if told:
        raise UserError(f"process 0: {told.decode(errors='ignore')}")
    return result


def agreed_integer(value: int) -> int:
    """Process 0's value, on every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def preemption_is_due(step: int) -> bool:
    """Whether all processes are to save and leave after `step`, one of them having had a SIGTERM.

    Every process must ask after every step; all are told the same step.
    """
    return bool(jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step))


def leave() -> None:
    """Waits for the other processes of the job and ends it; without a job, does nothing."""
    if jax.process_count() > 1:
        jax.distributed.shutdown()

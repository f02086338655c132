"""The devices: arithmetic on them that repeats, and the mesh that a run spreads over them."""

import os

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from fgr_jax.errors import UserError

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

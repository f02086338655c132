"""The cost of deterministic kernels on a GPU.

XLA reads its flags once per process, so each variant is timed in its own processes, in turns.
"""

import dataclasses
import multiprocessing
import os
import statistics
from collections.abc import Callable
from typing import Any

import jax

from fgr_jax.benchmark.interleaving import interleaved
from fgr_jax.benchmark.step_time import stepper, steps_of, synthetic_batch
from fgr_jax.config import Config
from fgr_jax.distributed import DETERMINISTIC_FLAG, compute_deterministically
from fgr_jax.errors import UserError

_TURNS = 2


def print_determinism_cost(config: Config, *, classes: int, rounds: int) -> None:
    """Times the step with block and GCE both ways. Must be called before JAX initializes a device.

    Raises:
      UserError: XLA_FLAGS already sets the flag, so both variants would be the same.
    """
    if DETERMINISTIC_FLAG in os.environ.get("XLA_FLAGS", ""):
        raise UserError(
            f"XLA_FLAGS={os.environ['XLA_FLAGS']}: sets whether kernels are deterministic, so the two "
            "ways cannot be compared; remove that flag"
        )
    medians: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(_TURNS):
        for wanted in medians:
            kind, median = _in_a_process_of_its_own(_time, config, classes, rounds, wanted)
            medians[wanted].append(median)
    deterministic, free = (statistics.median(medians[wanted]) for wanted in (True, False))
    print(
        f"determinism: {kind}; a step takes {deterministic * 1e3:.2f} ms with deterministic kernels, "
        f"{free * 1e3:.2f} ms with any: {deterministic / free:.3f} times as long "
        f"(medians of {rounds} steps in {_TURNS} processes each, in turns)"
    )


def has_gpu() -> bool:
    """Returns whether there is a GPU, without initializing JAX in this process."""
    return _in_a_process_of_its_own(jax.default_backend) == "gpu"


def _in_a_process_of_its_own(call: Callable[..., Any], *arguments: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        return alone.apply(call, arguments)


def _time(config: Config, classes: int, rounds: int, wanted: bool) -> tuple[str, float]:
    """Returns the device kind and the median step time in seconds. Runs in a new process."""
    compute_deterministically(wanted)
    config = dataclasses.replace(config, deterministic=wanted)
    steps = steps_of(config, classes)
    each = stepper(steps, synthetic_batch(config, classes))
    times = interleaved({"step": each.step}, rounds)
    return jax.devices()[0].device_kind, statistics.median(times["step"])

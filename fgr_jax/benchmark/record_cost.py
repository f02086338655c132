"""The cost of the records of a run: fingerprints and checkpoints."""

import itertools
import math
import statistics
import tempfile
from fractions import Fraction
from pathlib import Path

import jax
from etils import epath

from fgr_jax.benchmark.interleaving import interleaved
from fgr_jax.benchmark.step_time import steps_of, synthetic_batch
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.runs.checkpoints import Checkpoints
from fgr_jax.runs.logs import FingerprintLog

_SECONDS_BESIDE_A_SAVE = 2.0  # of steps, taken during the save


def print_record_cost(config: Config, *, classes: int, examples: int, rounds: int) -> None:
    """Times steps with and without a fingerprint, and with and without a save in progress.

    `examples` is the number of examples in an epoch, for intervals in epochs.
    """
    batch = synthetic_batch(config, classes)
    steps = steps_of(config, classes)
    state, record = steps.train(steps.init(), batch)
    numbers = itertools.count(1)  # of what is recorded

    def take(count: int) -> None:
        nonlocal state, record
        for _ in range(count):
            state, record = steps.train(state, batch)
        jax.block_until_ready((state, record))

    with tempfile.TemporaryDirectory() as folder:
        log = FingerprintLog(Path(folder), first_step=0)

        def with_fingerprint() -> None:
            take(1)
            log.note(next(numbers), steps.fingerprint(state, batch, record))
            log.write_pending()

        times = interleaved({"plain": lambda: take(1), "fingerprint": with_fingerprint}, rounds)
        step = statistics.median(times["plain"])
        fingerprint = _median_difference(times["fingerprint"], times["plain"])

        beside = max(1, math.ceil(_SECONDS_BESIDE_A_SAVE / step))
        with Checkpoints(epath.Path(folder) / "checkpoints") as checkpoints:

            def with_save() -> None:
                checkpoints.save(next(numbers), state.saved(), top1=None)
                take(beside)
                checkpoints.wait()

            times = interleaved({"plain": lambda: take(beside), "save": with_save}, rounds)
        save = _median_difference(times["save"], times["plain"])

    calendar = Calendar.of(config, examples)
    print(
        f"records: a step takes {step * 1e3:.1f} ms; batch {config.batch_size}, "
        f"{config.data.crop}×{config.data.crop}, {examples:,} examples; "
        f"medians of {rounds} interleaved rounds"
    )

    def print_share(name: str, cost: float, interval: Fraction | None, every: str) -> None:
        if interval is not None:
            share = cost / (float(interval) * step)
            print(f"{name:12} {cost * 1e3:9.2f} ms, every {every}: {share:.3%} of the steps' time")

    every = config.runtime.fingerprint_every
    print_share("fingerprint", fingerprint, calendar.fingerprint_interval, every)
    print_share("checkpoint", save, calendar.checkpoint_interval, config.checkpoint_every)


def _median_difference(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(one - other for one, other in zip(ours, theirs, strict=True))

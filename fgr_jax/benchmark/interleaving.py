"""Timing of variants in turns, so that their ratios hold on a busy machine."""

import statistics
import time
from collections.abc import Callable

import numpy as np

_WARM_UP_ROUNDS = 2


def interleaved(
    variants: dict[str, Callable[[], None]], rounds: int, *, untimed: int = 0
) -> dict[str, list[float]]:
    """Returns the seconds that each variant takes in each round; in a round, variants take turns.

    Args:
      variants: a function for each.
      rounds: how often each is timed.
      untimed: the number of calls before each that is timed, for variants with processes of their own: a
        system takes memory back from a process that waits.
    """
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_index in range(-_WARM_UP_ROUNDS, rounds):
        for name, call in variants.items():
            for _ in range(untimed):
                call()
            start = time.perf_counter()
            call()
            if round_index >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def median_and_quartiles(values: list[float]) -> str:
    """Returns a text such as "1.003 (quartiles 0.997 to 1.016)"."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"


def print_speeds(times: dict[str, list[float]], ratio: str, *, count: int, decimals: int) -> None:
    """Prints the speeds of two variants that take `count` images a round, and their `ratio`."""
    for name, seconds in times.items():
        print(f"{name:14} {count / statistics.median(seconds):9.{decimals}f} images/s")
    one, other = times.values()
    ratios = [a / b for a, b in zip(one, other, strict=True)]
    print(f"{ratio:34} {median_and_quartiles(ratios)}")

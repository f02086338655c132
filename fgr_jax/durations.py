"""Durations such as "3 epochs" or "500 steps", the form every duration in a config has."""

import math
import re
from fractions import Fraction

_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?)\s*")

NEVER = "never"


def steps_in(duration: str, *, examples: int, batch_size: int) -> int:
    """The first whole number of steps that covers `duration`.

    Batches run on across the end of an epoch, so nothing is dropped and nothing seen twice: e epochs
    of n examples in batches of b are ⌈e·n/b⌉ steps.

    Args:
      duration: "N steps" or "N epochs"; an epoch count may have a fraction.
      examples: n, training examples in an epoch.
      batch_size: b, examples in a global batch.

    Raises:
      ValueError: `duration` has another form.
    """
    number, unit = _parse(duration)
    return math.ceil(number) if unit == "step" else math.ceil(number * examples / batch_size)


def check(duration: str) -> None:
    """Raises ValueError where `duration` is not of the form `steps_in` takes."""
    _parse(duration)


def _parse(duration: str) -> tuple[Fraction, str]:
    match = _PATTERN.fullmatch(duration)
    if match is None:
        raise ValueError(f'{duration!r} is no duration: write "500 steps" or "3 epochs"')
    number, unit = Fraction(match.group(1)), match.group(2).rstrip("s")
    if unit == "step" and number.denominator != 1:
        raise ValueError(f"{duration!r} is no duration: a number of steps is whole")
    return number, unit

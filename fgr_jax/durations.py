"""Durations in configs, such as "3 epochs" or "500 steps".

Batches cross epoch boundaries, so that no example is dropped or repeated: an epoch of n examples in
batches of b is n/b steps, a fraction. An event "after e epochs" is due at the first step that covers
them, ⌈e·n/b⌉.
"""

import math
import re
from fractions import Fraction

_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?)\s*")


def parse(duration: str) -> tuple[Fraction, str]:
    """Returns the number and the unit, "step" or "epoch".

    Raises:
      ValueError: `duration` is neither "N steps" (N whole) nor "N epochs".
    """
    match = _PATTERN.fullmatch(duration)
    if match is None:
        raise ValueError(f'{duration!r} is not a duration: write "500 steps" or "3 epochs"')
    number, unit = Fraction(match.group(1)), match.group(2).rstrip("s")
    if unit == "step" and number.denominator != 1:
        raise ValueError(f"{duration!r} is not a duration: a number of steps is whole")
    return number, unit


def in_steps(duration: str, epoch: Fraction) -> Fraction:
    """Returns `duration` in steps, where `epoch` is the length of an epoch in steps."""
    number, unit = parse(duration)
    return number if unit == "step" else number * epoch


def whole_steps(duration: str, epoch: Fraction) -> int:
    """Returns the first step that covers `duration`."""
    return math.ceil(in_steps(duration, epoch))


def is_due(step: int, interval: Fraction) -> bool:
    """Returns whether an event that happens every `interval` steps happens after step `step`."""
    return step // interval > (step - 1) // interval

"""Numbers that may be missing, which are NaN, in text and in JSON."""

import math

MISSING = "–"


def as_text(value: float | None, form: str = ".1%") -> str:
    """Formats `value`, or returns a dash where it is NaN or None."""
    return MISSING if value is None or math.isnan(value) else format(value, form)


def as_json(value: float) -> float | None:
    """Returns `value`, or None where it is NaN, which JSON does not have."""
    return None if math.isnan(value) else value

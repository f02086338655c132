"""The error of a run over its epochs, from `metrics.jsonl`."""

from collections.abc import Iterable, Mapping
from typing import Any

Curve = tuple[tuple[float, float], ...]  # (epoch, error in [0, 1]), from the first to the last


def error_curve(records: Iterable[Mapping[str, Any]], split: str, *, epoch: float) -> Curve:
    """The top-1 error of a run on `split`, "train" or "test".

    Args:
      records: from `read_metrics`.
      split: "test": of the evaluations; "train": what the network made, while it was trained, of
        augmented pictures and with what the block suppresses.
      epoch: steps in an epoch.
    """
    return tuple(
        (record["step"] / epoch, 1 - record["top1"])
        for record in records
        if record["split"] == split
    )

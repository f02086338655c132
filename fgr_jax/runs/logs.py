"""The logs of a run: metrics, timings, fingerprints, and TensorBoard files.

Metrics and fingerprints contain only results, so two identical runs write the same files, byte for byte.
Measured times go into the timings.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from tensorboardX import SummaryWriter

from fgr_jax.calendar import Calendar
from fgr_jax.digests import as_hex
from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.files.atomic import atomic_write
from fgr_jax.runs.workdir import FINGERPRINTS, METRICS, PREDICTIONS, TENSORBOARD, TIMINGS

# In the order of computation in a step: the first that differs is the cause.
STREAMS = ("images", "labels", "masks", "loss", "parameters")

_PREDICTIONS_HEADER = "label,predicted"

_METRIC_FIELDS: json_lines.Fields = {
    "split": str,
    **dict.fromkeys(("loss", "top1", "top5"), (int, float)),
    **dict.fromkeys(("examples", "skipped"), int),
}

# (epoch, error in [0, 1]), from the first evaluation to the last.
Curve = tuple[tuple[float, float], ...]


class MetricsLog:
    """Appends metrics and timings to the files in `folder`; removes those after `first_step`."""

    def __init__(self, folder: Path, *, first_step: int, writes: bool = True):
        self._folder = folder
        self._tensorboard: SummaryWriter | None = None
        if writes:
            for name in (METRICS, TIMINGS):
                json_lines.cut_off_after(folder / name, first_step)
            self._tensorboard = SummaryWriter(
                str(folder / TENSORBOARD), purge_step=first_step + 1, flush_secs=10
            )

    def metrics(self, step: int, split: str, values: dict[str, float | int]) -> None:
        """Appends results on a split, or on the training batches of an epoch."""
        self._append(METRICS, {"step": step, "split": split}, split, values)

    def timings(self, step: int, values: dict[str, float]) -> None:
        """Appends measured times."""
        self._append(TIMINGS, {"step": step}, "timing", values)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        """Flushes and closes the TensorBoard files."""
        if self._tensorboard:
            self._tensorboard.close()

    def _append(
        self, name: str, head: dict[str, Any], group: str, values: Mapping[str, float | int]
    ) -> None:
        if self._tensorboard:
            json_lines.append(self._folder / name, {**head, **values})
            for value_name, value in values.items():
                self._tensorboard.add_scalar(f"{group}/{value_name}", value, head["step"])


class FingerprintLog:
    """Appends digests to the file in `folder`; removes those after `first_step`."""

    def __init__(self, folder: Path, *, first_step: int, writes: bool = True):
        self._path = folder / FINGERPRINTS
        self._writes = writes
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        if writes:
            json_lines.cut_off_after(self._path, first_step)

    def note(self, step: int, digests: dict[str, jax.Array]) -> None:
        """Stores the digests of `step`, one for each of STREAMS, and writes the previous ones.

        Writing one step late keeps the host from waiting for the devices.
        """
        self.write_pending()
        self._pending = (step, digests)

    def write_pending(self) -> None:
        """Waits for the digests that were stored last, and writes them."""
        if self._pending is None or not self._writes:
            return
        step, digests = self._pending
        self._pending = None
        values: dict[str, Any] = jax.device_get(digests)
        record = {"step": step, **{name: as_hex(values[name]) for name in STREAMS}}
        json_lines.append(self._path, record)


def write_predictions(folder: Path, predictions: npt.NDArray[np.int32]) -> None:
    """Writes label and predicted class of each test image, `[N, 2]` in the order of the split."""
    with atomic_write(folder / PREDICTIONS) as unfinished:
        np.savetxt(unfinished, predictions, "%d", ",", header=_PREDICTIONS_HEADER, comments="")


def read_predictions(folder: Path) -> npt.NDArray[np.int32]:
    """Reads label and predicted class of each test image after the last evaluation, `[N, 2]`.

    The label of a corrupt image is −1.

    Raises:
      UserError: the file is missing or damaged.
    """
    try:
        return np.loadtxt(folder / PREDICTIONS, np.int32, delimiter=",", skiprows=1, ndmin=2)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder / PREDICTIONS} cannot be read ({error}): remove {folder}, to train the run again"
        ) from error


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Reads the metrics of a run, oldest first.

    Raises:
      UserError: the file is damaged.
    """
    return json_lines.read(folder / METRICS, _METRIC_FIELDS)


def is_evaluated(folder: Path, step: int, split: str) -> bool:
    """Returns whether the metrics of a run have the results on a split after `step`."""
    return any(
        (record["step"], record["split"]) == (step, split) for record in read_metrics(folder)
    )


def last_step(folder: Path, calendar: Calendar, *, until: int | None = None) -> int:
    """Returns the last step of a run, which may end by its accuracies on the validation split.

    Args:
      folder: where its metrics are.
      calendar: its calendar.
      until: the last step whose metrics count; None: all do.
    """
    if calendar.patience is None:
        return calendar.total_steps
    return calendar.last_step(
        {
            record["step"]: record["top1"]
            for record in read_metrics(folder)
            if record["split"] == "validation" and (until is None or record["step"] <= until)
        }
    )


def evaluated_split(records: Iterable[Mapping[str, Any]]) -> str:
    """Returns the split that a run is evaluated on while it trains, "validation" or "test".

    `records` are the result of `read_metrics`.
    """
    return "validation" if any(each["split"] == "validation" for each in records) else "test"


def read_fingerprints(folder: Path) -> dict[int, dict[str, str]]:
    """Reads the digests of a run, by step and stream.

    Raises:
      UserError: the file is damaged.
    """
    return {
        record["step"]: {name: record[name] for name in STREAMS}
        for record in json_lines.read(folder / FINGERPRINTS, dict.fromkeys(STREAMS, str))
    }


def read_rates(folder: Path) -> dict[int, float]:
    """Reads the measured images per second of a run, by the step that ends each measurement.

    Raises:
      UserError: the file is damaged.
    """
    rates = {
        record["step"]: record.get("images_per_second")
        for record in json_lines.read(folder / TIMINGS)
    }
    return {step: rate for step, rate in rates.items() if isinstance(rate, (int, float))}


def error_curve(records: Iterable[Mapping[str, Any]], split: str, *, epoch: float) -> Curve:
    """Computes the top-1 error of a run over its epochs.

    Args:
      records: the result of `read_metrics`.
      split: "test" or "validation" for the evaluations, or "train" for the training batches (augmented
        images and suppressed maps).
      epoch: the number of steps in an epoch.
    """
    return tuple(
        (record["step"] / epoch, 1 - record["top1"])
        for record in records
        if record["split"] == split
    )

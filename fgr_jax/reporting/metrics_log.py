"""The numbers of a run, on the disk: `metrics.jsonl`, `timings.jsonl` and TensorBoard files.

`metrics.jsonl` holds results and nothing else: two runs that are the same run have the same file, byte
for byte. What the clock said goes into `timings.jsonl`.
"""

import json
import os
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter


class MetricsLog:
    """Appends to the files in a workdir, from `first_step` on.

    What an interrupted run wrote for later steps is cut off: those steps are taken, and written, again.
    """

    def __init__(self, workdir: Path, *, first_step: int):
        self._metrics_path = workdir / "metrics.jsonl"
        self._timings_path = workdir / "timings.jsonl"
        for path in (self._metrics_path, self._timings_path):
            _cut_off_after(path, first_step)
        self._tensorboard = SummaryWriter(
            str(workdir / "tensorboard"), purge_step=first_step + 1, flush_secs=10
        )

    def metrics(self, step: int, split: str, values: dict[str, float | int]) -> None:
        """Results over a split, or over an epoch's training batches."""
        _append(self._metrics_path, {"step": step, "split": split, **values})
        self._scalars(step, {f"{split}/{name}": value for name, value in values.items()})

    def timings(self, step: int, values: dict[str, float]) -> None:
        """What the clock said."""
        _append(self._timings_path, {"step": step, **values})
        self._scalars(step, {f"timing/{name}": value for name, value in values.items()})

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        """Writes out what TensorBoard has not written yet."""
        self._tensorboard.close()

    def _scalars(self, step: int, values: dict[str, Any]) -> None:
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, oldest first."""
    return _complete_lines(workdir / "metrics.jsonl")


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _cut_off_after(path: Path, step: int) -> None:
    kept = [json.dumps(record) + "\n" for record in _complete_lines(path) if record["step"] <= step]
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text("".join(kept), encoding="utf-8")
    unfinished.replace(path)


def _complete_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file whose last line may have been cut off by a kill or a full disk."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline is cut off

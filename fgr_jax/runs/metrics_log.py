"""The numbers of a run, on the disk: `metrics.jsonl`, `timings.jsonl` and TensorBoard files.

`metrics.jsonl` holds results and nothing else: two runs that are the same run have the same file, byte
for byte. What the clock said goes into `timings.jsonl`.
"""

from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from fgr_jax.files import json_lines


class MetricsLog:
    """Appends to the files in a workdir, from `first_step` on."""

    def __init__(self, workdir: Path, *, first_step: int, writes: bool = True):
        self._metrics_path = workdir / "metrics.jsonl"
        self._timings_path = workdir / "timings.jsonl"
        self._tensorboard: SummaryWriter | None = None
        if writes:
            for path in (self._metrics_path, self._timings_path):
                json_lines.cut_off_after(path, first_step)
            self._tensorboard = SummaryWriter(
                str(workdir / "tensorboard"), purge_step=first_step + 1, flush_secs=10
            )

    def metrics(self, step: int, split: str, values: dict[str, float | int]) -> None:
        """Results over a split, or over an epoch's training batches."""
        self._append(self._metrics_path, {"step": step, "split": split, **values})
        self._scalars(step, {f"{split}/{name}": value for name, value in values.items()})

    def timings(self, step: int, values: dict[str, float]) -> None:
        """What the clock said."""
        self._append(self._timings_path, {"step": step, **values})
        self._scalars(step, {f"timing/{name}": value for name, value in values.items()})

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        """Writes out what TensorBoard has not written yet."""
        if self._tensorboard:
            self._tensorboard.close()

    def _append(self, path: Path, record: dict[str, Any]) -> None:
        if self._tensorboard:
            json_lines.append(path, record)

    def _scalars(self, step: int, values: dict[str, Any]) -> None:
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`, oldest first."""
    return json_lines.read(workdir / "metrics.jsonl")

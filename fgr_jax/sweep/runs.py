"""The runs of a sweep, each a process of its own."""

import dataclasses
import subprocess
import sys
from pathlib import Path

from fgr_jax.inference.saved_run import open_run
from fgr_jax.runs.folder import RunFolder
from fgr_jax.runs.logs import Curve, error_curve, read_metrics

_LOG = "output.txt"


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How one run ended."""

    seed: int
    workdir: Path
    failure: str = ""  # the last line of its output, where it failed
    top1: float | None = None  # on the test split, after the last step; None where it failed
    curve: Curve = ()  # of the test split


def start(arguments: list[str], workdir: Path) -> subprocess.Popen:
    """Starts or resumes the run in `workdir`; its output is appended to a file there."""
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / _LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "fgr_jax.main", *arguments, f"--workdir={workdir}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to the sweep alone, which forwards it
        )


def result(seed: int, workdir: Path, status: int) -> Result:
    """Reads the result of a run that ended with `status`."""
    if status != 0:
        lines = (workdir / _LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        printed = [line for line in lines if line.strip()]
        last = printed[-1].removeprefix("error: ") if printed else f"status {status}"
        return Result(seed, workdir, failure=last)
    records = read_metrics(workdir)
    top1 = [record["top1"] for record in records if record["split"] == "test"][-1]
    epoch = float(open_run(RunFolder.open(workdir)).calendar.epoch)
    curve = error_curve(records, "test", epoch=epoch)
    return Result(seed, workdir, top1=top1, curve=curve)

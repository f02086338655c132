"""The results of a sweep's runs, and their table: mean and deviation over the seeds."""

import csv
import dataclasses
import io
import re
import shlex
import statistics
from collections.abc import Sequence
from pathlib import Path

from fgr_jax.errors import UserError
from fgr_jax.inference.saved_run import open_run
from fgr_jax.runs.logs import Curve, error_curve, read_metrics
from fgr_jax.runs.workdir import METRICS, Workdir
from fgr_jax.sweep.plan import Row, Sweep

MISSING = "–"
LOG = "output.txt"  # what a run prints, in its workdir


# What Markdown and HTML give a meaning to.
_MARKED = re.compile(r"[\\`*_{}\[\]<>#|&~$]")


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How one run ended."""

    seed: int
    workdir: Path
    failure: str = ""  # the last line of its output, if it failed
    top1: float | None = None  # in [0, 1], on the test split after the last step; None if it failed
    curve: Curve = ()  # of the test split


def result(seed: int, workdir: Path, status: int) -> Result:
    """Reads the result of a run that ended with `status`."""
    if status != 0:
        lines = (workdir / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        printed = [line for line in lines if line.strip()]
        last = printed[-1].removeprefix("error: ") if printed else f"status {status}"
        return Result(seed, workdir, failure=last)
    try:
        records = read_metrics(workdir)
        epoch = float(open_run(Workdir.open(workdir)).calendar.epoch)
    except UserError as error:
        return Result(seed, workdir, failure=str(error))
    tests = [record["top1"] for record in records if record["split"] == "test"]
    if not tests:
        return Result(seed, workdir, failure=f"{METRICS} has no test results")
    curve = error_curve(records, "test", epoch=epoch)
    return Result(seed, workdir, top1=tests[-1], curve=curve)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A row with the results of its runs."""

    row: Row
    results: tuple[Result, ...]

    @property
    def accuracies(self) -> list[float]:
        """Top-1 accuracies on the test split of the finished runs, in %."""
        return [100 * each.top1 for each in self.results if each.top1 is not None]

    @property
    def mean(self) -> float | None:
        """The mean accuracy in %; None without a finished run."""
        return statistics.mean(self.accuracies) if self.accuracies else None

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation of the accuracies; None for fewer than two."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else None

    @property
    def in_words(self) -> str:
        """Mean and deviation, as in "74.0 ± 0.3"."""
        if self.mean is None:
            return MISSING
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


def header(with_paper: bool) -> tuple[str, ...]:
    """Returns the names of the columns."""
    return ("", "top-1, %", "each seed", *(["the paper's"] if with_paper else []))


def cells(line: Line, with_paper: bool) -> tuple[str, ...]:
    """Returns the cells of a row as text."""
    each = ", ".join(
        "failed" if each.top1 is None else f"{100 * each.top1:.1f}" for each in line.results
    )
    paper = [MISSING if line.row.paper is None else f"{line.row.paper:.1f}"] if with_paper else []
    return (line.row.name, line.in_words, each or MISSING, *paper)


def as_markdown(
    sweep: Sweep, lines: Sequence[Line], *, command: str, with_paper: bool, figure: str
) -> str:
    """Returns a page with the command, the table, the failures and the figure."""
    names = header(with_paper)
    text = [f"# {_escaped(sweep.title)}", "", _as_code(command), ""]
    text += [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    for line in lines:
        escaped = [_escaped(cell) for cell in cells(line, with_paper)]
        text.append(f"| {' | '.join(escaped)} |")
    text += [
        "",
        "Top-1 accuracy on the test split after the last step, mean ± sample deviation.",
        "",
    ]
    failures = [
        f"- {_escaped(line.row.name)}, seed {each.seed}: {_escaped(each.failure)}"
        for line in lines
        for each in line.results
        if each.failure
    ]
    if failures:
        text += ["Failed:", "", *failures, ""]
    if figure:
        text += [f"![{_escaped(sweep.title)}]({figure})", ""]
    return "\n".join(text)


def as_csv(lines: Sequence[Line]) -> str:
    """Returns a table with one line per run."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["row", "seed", "top1", "paper", "workdir", "failure", "overrides"])
    for line in lines:
        overrides = shlex.join(
            f"--config.{name}={value}" for name, value in line.row.overrides.items()
        )
        name, paper = line.row.name, line.row.paper
        for each in line.results:  # the writer writes None as an empty cell
            writer.writerow(
                [name, each.seed, each.top1, paper, each.workdir, each.failure, overrides]
            )
    return file.getvalue()


def _escaped(text: str) -> str:
    """Returns `text` in one line of Markdown, each character standing for itself."""
    return _MARKED.sub(r"\\\g<0>", " ".join(text.split()))


def _as_code(text: str) -> str:
    """Returns `text` as code in Markdown, between more backticks than it has in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"

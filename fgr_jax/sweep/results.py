"""The table of a sweep: mean and deviation over the seeds, beside the paper's results."""

import csv
import dataclasses
import io
import statistics
from collections.abc import Sequence

from fgr_jax.sweep.plan import Row, Sweep
from fgr_jax.sweep.runs import Result

MISSING = "–"


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
        f"{100 * result.top1:.1f}"
        if result.top1 is not None
        else "failed"
        if result.failure
        else "…"
        for result in line.results
    )
    paper = [MISSING if line.row.paper is None else f"{line.row.paper:.1f}"] if with_paper else []
    return (line.row.name, line.in_words, each or MISSING, *paper)


def as_markdown(
    sweep: Sweep, lines: Sequence[Line], *, command: str, with_paper: bool, figure: str
) -> str:
    """Returns a page with the command, the table, the failures and the figure."""
    names = header(with_paper)
    text = [f"# {sweep.title}", "", f"`{command}`", ""]
    text += [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    text += [
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells(line, with_paper))} |"
        for line in lines
    ]
    text += [
        "",
        "Top-1 accuracy on the test split after the last step, mean ± sample deviation.",
        "",
    ]
    failures = [
        f"- {line.row.name}, seed {result.seed}: {result.failure}"
        for line in lines
        for result in line.results
        if result.failure
    ]
    if failures:
        text += ["Failed:", "", *failures, ""]
    if figure:
        text += [f"![{sweep.title}]({figure})", ""]
    return "\n".join(text)


def as_csv(lines: Sequence[Line]) -> str:
    """Returns a table with a line for each run."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["row", "seed", "top1", "paper", "workdir", "failure", "overrides"])
    for line in lines:
        overrides = " ".join(
            f"--config.{name}={value}" for name, value in line.row.overrides.items()
        )
        paper = "" if line.row.paper is None else line.row.paper
        for result in line.results:
            top1 = "" if result.top1 is None else result.top1
            writer.writerow(
                [line.row.name, result.seed, top1, paper, result.workdir, result.failure, overrides]
            )
    return file.getvalue()

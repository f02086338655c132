"""The results of a sweep's runs: mean and deviation over runs, and what a search decides for."""

import dataclasses
import statistics
from pathlib import Path

from fgr_jax.errors import DivergedError, UserError
from fgr_jax.inference.saved_run import open_run
from fgr_jax.runs.logs import Curve, error_curve, evaluated_split, read_metrics
from fgr_jax.runs.workdir import METRICS, Workdir
from fgr_jax.sweep.plan import Row, Search

MISSING = "–"
LOG = "output.txt"  # what a run prints, in its workdir


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """How one run ended."""

    seed: int
    workdir: Path
    fold: str = ""  # "1/5": it was tested on a fold of the training images
    failure: str = ""  # the last line of its output, if it failed
    diverged: bool = False  # it failed, since its loss or weights became infinite or NaN
    top1: float | None = None  # in [0, 1], on the test split after the last step; None if it failed
    curve: Curve = ()  # of the split that it was evaluated on while it trained
    evaluated: str = "test"  # the name of that split

    @property
    def name(self) -> str:
        """What tells it from the others of its row: "seed 0" or "fold 1/5"."""
        return f"fold {self.fold}" if self.fold else f"seed {self.seed}"


def result(seed: int, workdir: Path, status: int, fold: str = "") -> Result:
    """Reads the result of a run that ended with `status`."""
    if status != 0:
        lines = (workdir / LOG).read_text(encoding="utf-8", errors="replace").split("\n")
        printed = [line for line in lines if line.strip()]
        last = printed[-1].removeprefix("error: ") if printed else f"status {status}"
        return Result(
            seed, workdir, fold, failure=last, diverged=status == DivergedError.exit_status
        )
    try:
        records = read_metrics(workdir)
        epoch = float(open_run(Workdir.open(workdir)).calendar.epoch)
    except UserError as error:
        return Result(seed, workdir, fold, failure=str(error))
    tests = [record["top1"] for record in records if record["split"] == "test"]
    if not tests:
        return Result(seed, workdir, fold, failure=f"{METRICS} has no test results")
    evaluated = evaluated_split(records)
    curve = error_curve(records, evaluated, epoch=epoch)
    return Result(seed, workdir, fold, top1=tests[-1], curve=curve, evaluated=evaluated)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The runs of a row with the values of a search, and the value that they decide for."""

    search: Search
    results: tuple[Result, ...]  # of the first values

    @property
    def best(self) -> int | None:
        """The index of the value with the highest accuracy; None without a finished run."""
        tried = [index for index, each in enumerate(self.results) if each.top1 is not None]
        return max(tried, key=lambda index: self.results[index].top1 or 0, default=None)

    @property
    def failures(self) -> list[Result]:
        """The runs that failed; one that diverged counts only if no other finished."""
        return [
            each
            for each in self.results
            if each.failure and not (each.diverged and self.best is not None)
        ]

    @property
    def in_words(self) -> str:
        """The value and its accuracy on the validation split in %, as in "0.003 (64.1)"."""
        best = self.best
        if best is None:
            return MISSING
        at_end = "" if 0 < best < len(self.search.values) - 1 else ", at the end of the grid"
        return f"{self.search.values[best]} ({100 * (self.results[best].top1 or 0):.1f}{at_end})"


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A row with the results of its runs."""

    row: Row
    results: tuple[Result, ...]
    choice: Choice | None = None

    @property
    def chosen(self) -> dict[str, object]:
        """The override that the search decides for, if there is one."""
        if self.choice is None or (best := self.choice.best) is None:
            return {}
        return {self.choice.search.field: self.choice.search.values[best]}

    @property
    def failures(self) -> list[tuple[str, Result]]:
        """The runs that failed, those of the search first, with their names."""
        searched = self.choice.failures if self.choice else []
        return [
            *((each.workdir.name, each) for each in searched),
            *((each.name, each) for each in self.results if each.failure),
        ]

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

"""The table of a sweep, as text, as a page in Markdown and as CSV."""

import csv
import io
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgr_jax.runs.logs import read_predictions
from fgr_jax.sweep.plan import Search, Sweep
from fgr_jax.sweep.results import MISSING, Line, Result

# What Markdown and HTML give a meaning to.
_MARKED = re.compile(r"[\\`*_{}\[\]<>#|&~$]")

# The columns of a table: from their names to the cell of a line, given all lines.
Columns = Mapping[str, Callable[[Line, Sequence[Line]], str]]


def columns(sweep: Sweep, with_paper: bool) -> Columns:
    """Returns the columns of the table of a sweep."""
    table: dict[str, Callable[[Line, Sequence[Line]], str]] = {"": lambda line, _: line.row.name}
    if sweep.search:
        name = sweep.search.field.rpartition(".")[2].replace("_", " ")
        table[f"{name} (validation, %)"] = lambda line, _: (
            line.choice.in_words if line.choice else MISSING
        )
    table["top-1, %"] = lambda line, _: line.in_words
    table["each fold" if sweep.folds else "each seed"] = lambda line, _: _each_run(line)
    if sweep.baseline:
        table[f"− {sweep.baseline}"] = lambda line, lines: _difference(line, lines, sweep.baseline)
    if with_paper and any(row.paper for row in sweep.rows):
        table["the paper's"] = lambda line, _: (
            MISSING if line.row.paper is None else f"{line.row.paper:.1f}"
        )
    if with_paper and any(row.published for row in sweep.rows):
        table["published"] = lambda line, _: line.row.published or MISSING
    return table


def cells(line: Line, lines: Sequence[Line], table: Columns) -> tuple[str, ...]:
    """Returns the cells of a row as text."""
    return tuple(cell(line, lines) for cell in table.values())


def _each_run(line: Line) -> str:
    each = ["failed" if each.top1 is None else f"{100 * each.top1:.1f}" for each in line.results]
    return ", ".join(each) or MISSING


def _difference(line: Line, lines: Sequence[Line], baseline: str) -> str:
    """Returns the difference of accuracies in points, and its standard error over the test images.

    For each image, the shares of the seeds with which it is classified correctly are compared; with
    folds, each image is in one.
    """
    (base,) = (each for each in lines if each.row.name == baseline)
    ours, theirs = ({each.name: each for each in one.results} for one in (line, base))
    names = [
        name for name in ours if name in theirs and None not in (ours[name].top1, theirs[name].top1)
    ]
    if line.row.name == baseline or not names:
        return MISSING
    one, other = (_correct([of[name] for name in names]) for of in (ours, theirs))
    if len(one) != len(other):
        return MISSING  # the rows are tested on different splits
    differences = 100 * (one - other)
    error = differences.std(ddof=1) / math.sqrt(len(differences))
    return f"{differences.mean():+.1f} ± {error:.1f}"


def _correct(results: Sequence[Result]) -> npt.NDArray[np.floating]:
    """Returns the share of the seeds that classify each image correctly; with folds, 0 or 1, `[N]`.

    The array is empty if the runs are tested on different numbers of images.
    """
    each = [_is_correct(result.workdir) for result in results]
    if any(result.fold for result in results):
        return np.concatenate(each).astype(float)
    if len({len(one) for one in each}) > 1:
        return np.empty(0)
    mean: npt.NDArray[np.floating] = np.mean(each, axis=0)
    return mean


def _is_correct(workdir: Path) -> npt.NDArray[np.bool_]:
    """Returns for each test image whether the prediction of a run is correct, `[N]`."""
    label, predicted = read_predictions(workdir).T
    correct: npt.NDArray[np.bool_] = label == predicted
    return correct


def as_markdown(
    sweep: Sweep, lines: Sequence[Line], *, command: str, with_paper: bool, figure: str
) -> str:
    """Returns a page with the command, the tables, the failures and the figure."""
    table = columns(sweep, with_paper)
    text = [f"# {_escaped(sweep.title)}", "", _as_code(command), ""]
    text += _table(tuple(table), [cells(line, lines, table) for line in lines])
    on = f"each of {sweep.folds} folds of the training images" if sweep.folds else "the test split"
    text += [f"Top-1 accuracy on {on} after the last step, mean ± sample deviation.", ""]
    if sweep.baseline:
        text += [
            f"Differences to “{_escaped(sweep.baseline)}” in points, ± their standard error over the "
            "test images.",
            "",
        ]
    if sweep.search:
        text += _searched(sweep.search, lines)
    if with_paper and sweep.not_run:
        not_run = (f"- {_escaped(name)}: {_escaped(why)}" for name, why in sweep.not_run.items())
        text += ["Not run:", "", *not_run, ""]
    failures = [
        f"- {_escaped(line.row.name)}, {_escaped(name)}: {_escaped(each.failure)}"
        for line in lines
        for name, each in line.failures
    ]
    if failures:
        text += ["Failed:", "", *failures, ""]
    if figure:
        text += [f"![{_escaped(sweep.title)}]({figure})", ""]
    return "\n".join(text)


def _searched(search: Search, lines: Sequence[Line]) -> list[str]:
    """Returns the table of the accuracies on the validation split."""
    rows = [
        (
            line.row.name,
            *(_on_validation(each) for each in (line.choice.results if line.choice else ())),
        )
        for line in lines
    ]
    missing = len(search.values) + 1
    rows = [(*row, *[MISSING] * (missing - len(row))) for row in rows]
    return [
        f"Each row has the {_escaped(search.field)} with the highest top-1 accuracy, %, with seed 0 and "
        f"`data.fold={search.fold}`:",
        "",
        *_table(("", *map(str, search.values)), rows),
    ]


def _on_validation(result: Result) -> str:
    if result.top1 is not None:
        return f"{100 * result.top1:.1f}"
    return "diverged" if result.diverged else MISSING


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Returns the lines of a table and an empty one."""
    lines = [header, *rows]
    text = [f"| {' | '.join(map(_escaped, cells))} |" for cells in lines]
    return [text[0], "|" + "---|" * len(header), *text[1:], ""]


def as_csv(lines: Sequence[Line]) -> str:
    """Returns a table with one line per run."""
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["row", "seed", "fold", "top1", "paper", "workdir", "failure", "overrides"])
    for line in lines:
        chosen = line.row.with_overrides(line.chosen)
        overrides = shlex.join(
            f"--config.{name}={value}" for name, value in chosen.overrides.items()
        )
        name, paper = line.row.name, line.row.paper
        for each in line.results:  # the writer writes None as an empty cell
            writer.writerow(
                [
                    name,
                    each.seed,
                    each.fold,
                    each.top1,
                    paper,
                    each.workdir,
                    each.failure,
                    overrides,
                ]
            )
    return file.getvalue()


def _escaped(text: str) -> str:
    """Returns `text` in one line of Markdown, each character standing for itself."""
    return _MARKED.sub(r"\\\g<0>", " ".join(text.split()))


def _as_code(text: str) -> str:
    """Returns `text` as code in Markdown, between more backticks than it has in a row."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"

"""The figure of a sweep, as a PNG."""

import io
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fgr_jax.sweep.plan import Sweep
from fgr_jax.sweep.results import Line

_COLORS = 10  # in matplotlib's color cycle


def draw(sweep: Sweep, lines: Sequence[Line], *, with_paper: bool) -> bytes:
    """Draws the figure of the finished runs.

    Returns:
      The bytes of a PNG, or b"" if no run is finished.
    """
    lines = [line for line in lines if line.accuracies]
    if not lines:
        return b""
    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    axes.set_title(_literal(sweep.title), fontsize=10)
    {"points": _points, "line": _line, "curves": _curves}[sweep.figure](
        axes, sweep, lines, with_paper
    )
    axes.grid(visible=True, alpha=0.3)
    file = io.BytesIO()
    with mpl.rc_context({"savefig.facecolor": "white"}):
        figure.savefig(file, format="png")
    return file.getvalue()


def _points(axes: Axes, sweep: Sweep, lines: Sequence[Line], with_paper: bool) -> None:
    places = range(len(lines))
    means = [line.mean or 0.0 for line in lines]
    errors = [line.deviation or 0.0 for line in lines]
    axes.errorbar(means, places, xerr=errors, fmt="o", capsize=4, label="here")
    if with_paper:
        known = [(line.row.paper, place) for place, line in enumerate(lines)]
        points = [(paper, place) for paper, place in known if paper is not None]
        axes.plot(*zip(*points, strict=True), "kD", label="the paper's")
        axes.legend()
    axes.set_yticks(places, [_literal(line.row.name) for line in lines])
    axes.margins(y=0.15)
    axes.invert_yaxis()
    axes.set_xlabel(f"top-1 accuracy, % (mean and deviation over {_runs(sweep, lines)})")


def _line(axes: Axes, sweep: Sweep, lines: Sequence[Line], with_paper: bool) -> None:
    on_axis = [line for line in lines if line.row.x is not None]
    axes.errorbar(
        [line.row.x or 0.0 for line in on_axis],
        [line.mean or 0.0 for line in on_axis],
        yerr=[line.deviation or 0.0 for line in on_axis],
        marker="o",
        capsize=4,
        label="here",
    )
    # Rows without a place on the axis, such as cross-entropy, are horizontal lines.
    for index, line in enumerate(line for line in lines if line.row.x is None):
        label = _literal(line.row.name)
        axes.axhline(line.mean or 0.0, linestyle="--", color=f"C{index + 1}", label=label)
    points = [(line.row.x, line.row.paper) for line in on_axis if line.row.paper is not None]
    if with_paper and points:
        axes.plot(*zip(*points, strict=True), "kD", label="the paper's")
    if sweep.log_x:
        axes.set_xscale("log")
    axes.set_xlabel(sweep.x_label)
    axes.set_ylabel("top-1 accuracy, %")
    axes.legend()


def _curves(axes: Axes, sweep: Sweep, lines: Sequence[Line], with_paper: bool) -> None:
    del with_paper
    for index, line in enumerate(lines):
        finished = [result for result in line.results if result.curve]
        curves = [result.curve for result in finished]
        axes.set_ylabel(f"{finished[0].evaluated} error, %")
        epochs = [epoch for epoch, _ in curves[0]]
        # Rows are seeds, columns epochs.
        errors = 100 * np.array([[error for _, error in curve] for curve in curves])
        color = f"C{index % _COLORS}"
        axes.plot(epochs, errors.mean(axis=0), color=color, label=_literal(line.row.name))
        axes.fill_between(epochs, errors.min(axis=0), errors.max(axis=0), color=color, alpha=0.15)
    axes.set_xlabel(f"epoch (mean and range over {_runs(sweep, lines)})")
    axes.legend()


def _literal(name: str) -> str:
    """Returns a label whose dollar signs are no formula, and that a legend does not leave out."""
    escaped = name.replace("$", r"\$")
    return f" {escaped}" if name.startswith("_") else escaped


def _runs(sweep: Sweep, lines: Sequence[Line]) -> str:
    count = max(len(line.results) for line in lines)
    return f"{count} {'folds' if sweep.folds else 'seeds'}"

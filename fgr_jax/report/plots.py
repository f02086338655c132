"""The plots of a report, as `data:` URLs of SVG files.

Names of classes, files and runs are in the page, not in the plots: browsers have fonts for every
script, and matplotlib would parse some characters as formulas.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from fgr_jax.evaluate.measures import Calibration
from fgr_jax.evaluate.rejection import Coverage
from fgr_jax.runs.logs import Curve

# For the run and the compared run; distinguishable with any color vision and in gray.
RUN_COLORS = ("#1b5faa", "#d1731c")
RUN_NAMES = ("this run", "compared run")
_STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "fgr_jax", "font.size": 10.0}


def draw_curves(curves: Sequence[Mapping[str, Curve]]) -> str:
    """Draws errors over the epochs (figure 5), for one or two runs.

    Args:
      curves: the curve of each split, by name, of each run; that of the training is the last.
    """
    figure = _figure()
    axes = figure.add_subplot()
    for of_run, color, name in zip(curves, RUN_COLORS, RUN_NAMES, strict=False):
        for (what, curve), line in zip(of_run.items(), ("-", "--"), strict=True):
            epochs = [epoch for epoch, _ in curve]
            errors = [100 * error for _, error in curve]
            marker = "o" if len(curve) <= 60 else None
            label = f"{name}, {what}" if len(curves) > 1 else what
            axes.plot(epochs, errors, line, color=color, marker=marker, ms=3, label=label)
    axes.set(xlabel="epochs", ylabel="error, %")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return _url(figure)


def draw_calibration(calibrations: Sequence[Calibration]) -> str:
    """Draws accuracy over confidence, in bins; a calibrated network lies on the diagonal."""
    figure = _figure()
    axes = figure.add_subplot()
    axes.plot([0, 100], [0, 100], color="#888888", linewidth=1)
    for bins, color, name in zip(calibrations, RUN_COLORS, RUN_NAMES, strict=False):
        filled = bins.counts > 0
        x, y = 100 * bins.confidences[filled], 100 * bins.accuracies[filled]
        axes.plot(x, y, "o-", ms=4, color=color, label=name)
    axes.set(xlabel="confidence, %", ylabel="accuracy, %", xlim=(0, 100), ylim=(0, 100))
    axes.grid(visible=True, alpha=0.3)
    if len(calibrations) > 1:
        axes.legend(loc="upper left")
    return _url(figure)


def draw_coverage(coverages: Sequence[Coverage]) -> str:
    """Draws the accuracy of the images that are kept over their share."""
    figure = _figure()
    axes = figure.add_subplot()
    for each, color, name in zip(coverages, RUN_COLORS, RUN_NAMES, strict=False):
        axes.plot(100 * each.kept, 100 * each.accuracies, color=color, label=name)
    axes.set(xlabel="images kept, %", ylabel="accuracy of those, %", xlim=(0, 100))
    axes.set_ylim(top=100.5)
    axes.grid(visible=True, alpha=0.3)
    if len(coverages) > 1:
        axes.legend(loc="lower left")
    return _url(figure)


def draw_embedding(
    points: npt.NDArray[np.floating], groups: npt.NDArray[np.integer], errors: npt.NDArray[np.bool_]
) -> str:
    """Draws points in the plane, with a color for each group.

    Args:
      points: `[n, 2]`.
      groups: an index into `group_colors` for each point, `[n]`.
      errors: whether each point is drawn as a cross, `[n]`.
    """
    figure = _figure()
    axes = figure.add_subplot(xticks=[], yticks=[])
    colors = np.asarray(group_colors(int(groups.max()) + 1))[groups]
    for chosen, marker, size in ((~errors, "o", 14), (errors, "x", 26)):
        x, y = points[chosen].T
        axes.scatter(x, y, s=size, c=colors[chosen], marker=marker, linewidths=1)
    return _url(figure)


def group_colors(count: int) -> list[str]:
    """Returns distinct hex colors for `count` ≤ 10 groups."""
    return [mpl.colors.to_hex(mpl.colormaps["tab10"](index)) for index in range(count)]


def _figure() -> Figure:
    """Creates a figure; all figures have the same size, hence the same text size."""
    return Figure(figsize=(5.6, 4), layout="constrained")


def _url(figure: Figure) -> str:
    file = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"

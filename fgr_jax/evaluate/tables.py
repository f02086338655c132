"""What `evaluate` shows on the terminal."""

import math

import numpy as np

from fgr_jax.evaluate.diversity import MASS_SHARE
from fgr_jax.evaluate.evaluation import Accuracy, Evaluation, MapSummary
from fgr_jax.evaluate.measures import CALIBRATION_BINS
from fgr_jax.terminal import Terminal

_PAIRS_SHOWN = 10
_CLASSES_SHOWN = 10


def print_tables(evaluation: Evaluation, title: str, alpha: float, terminal: Terminal) -> None:
    """Prints accuracy, the most confused pairs, the worst classes and the measures of the maps.

    Args:
      evaluation: what came out.
      title: of what.
      alpha: of the block that the network was trained with; 1: it was trained without.
      terminal: where to.
    """
    rows = [_accuracy_row("one crop, the center", evaluation.center_crop)]
    if evaluation.five_crops:
        rows.append(_accuracy_row("five crops", evaluation.five_crops))
    terminal.table(title, rows, header=("crops", "top-1", "top-5", "loss", "ECE"))
    terminal.line(
        f"ECE, the expected calibration error, is how far confidence is from accuracy, a mean over "
        f"{CALIBRATION_BINS} bins."
    )
    _print_pairs(evaluation, terminal)
    _print_classes(evaluation, terminal)
    _print_maps(evaluation, alpha, terminal)


def _accuracy_row(name: str, accuracy: Accuracy) -> tuple[str, ...]:
    return (
        name,
        f"{accuracy.top1:.2%}",
        f"{accuracy.top5:.2%}",
        f"{accuracy.loss:.3f}",
        f"{accuracy.calibration.error:.2%}",
    )


def _print_pairs(evaluation: Evaluation, terminal: Terminal) -> None:
    names = evaluation.class_names
    rows: list[tuple[str, ...]] = [
        (
            f"{names[pair.first]} / {names[pair.second]}",
            f"{pair.count:,}",
            f"{pair.first_as_second:,}",
            f"{pair.second_as_first:,}",
            f"{pair.share:.1%}",
        )
        for pair in evaluation.pairs[:_PAIRS_SHOWN]
    ]
    if not rows:
        terminal.line("No class was taken for another.")
        return
    terminal.table(
        _of_all("the most confused pairs", len(rows), len(evaluation.pairs)),
        rows,
        header=("pair", "errors", "1st as 2nd", "2nd as 1st", "of all errors"),
    )


def _print_classes(evaluation: Evaluation, terminal: Terminal) -> None:
    classes, names = evaluation.classes, evaluation.class_names
    accuracies = classes.accuracies
    present = np.flatnonzero(classes.counts)
    worst = present[np.argsort(accuracies[present], kind="stable")][:_CLASSES_SHOWN]
    terminal.table(
        _of_all("the worst classes", len(worst), len(present)),
        [
            (
                names[index],
                f"{accuracies[index]:.1%}",
                f"{classes.counts[index]:,}",
                _mostly_taken_for(evaluation, int(index)),
            )
            for index in worst
        ],
        header=("class", "top-1", "pictures", "mostly taken for"),
    )


def _mostly_taken_for(evaluation: Evaluation, index: int) -> str:
    errors = evaluation.confusion[index].copy()
    errors[index] = 0
    return evaluation.class_names[int(errors.argmax())] if errors.any() else "-"


def _print_maps(evaluation: Evaluation, alpha: float, terminal: Terminal) -> None:
    block = "without the block" if alpha == 1 else f"with the block, α = {alpha}"
    has_parts = bool(evaluation.true_map.visible_parts or evaluation.predicted_map.visible_parts)
    header = ["map of", f"area of {MASS_SHARE:.0%}", "entropy", "of the highest", "without mass"]
    header += ["parts in it"] if has_parts else []
    rows = [
        _map_row("the true class", evaluation.true_map, has_parts),
        _map_row("the predicted class", evaluation.predicted_map, has_parts),
    ]
    terminal.table(f"class activation maps, trained {block}", rows, header=tuple(header))
    terminal.line(
        f"The area is the smallest that holds {MASS_SHARE:.0%} of a map's positive part"
        + (
            ", and parts in it are those of the annotated ones that can be seen."
            if has_parts
            else "."
        )
    )


def _map_row(name: str, summary: MapSummary, has_parts: bool) -> tuple[str, ...]:
    row = [name, _or_dash(summary.area, ".1%"), _or_dash(summary.entropy, ".3f")]
    row += [_or_dash(summary.relative_entropy, ".1%"), f"{summary.without_mass:,}"]
    return (*row, *([_or_dash(summary.parts_share, ".1%")] if has_parts else []))


def _or_dash(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _of_all(what: str, shown: int, total: int) -> str:
    return what if shown == total else f"{what}, {shown:,} of {total:,}"

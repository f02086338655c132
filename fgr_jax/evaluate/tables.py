"""The tables that `evaluate` prints."""

import math

import numpy as np

from fgr_jax.evaluate.diversity import MASS_SHARE
from fgr_jax.evaluate.evaluation import Evaluation
from fgr_jax.evaluate.foreign import ForeignImages
from fgr_jax.evaluate.measures import CALIBRATION_BINS
from fgr_jax.terminal import Terminal

MISSING = "–"
_PAIRS_SHOWN = 10
_CLASSES_SHOWN = 10
_REJECTED = (0.0, 0.05, 0.1, 0.2, 0.5)


def as_text(value: float | None, form: str = ".1%") -> str:
    """Formats `value`, or returns a dash if it is NaN or None."""
    return MISSING if value is None or math.isnan(value) else format(value, form)


def print_tables(evaluation: Evaluation, title: str, alpha: float, terminal: Terminal) -> None:
    """Prints accuracy, the most confused pairs, the worst classes and the measures of the maps.

    With `alpha` = 1, the network was trained without the block.
    """
    accuracies = {
        "one crop, the center": evaluation.center_crop,
        "five crops": evaluation.five_crops,
    }
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{accuracy.top1:.2%}",
            f"{accuracy.top5:.2%}",
            f"{accuracy.loss:.3f}",
            f"{accuracy.calibration.error:.2%}",
        )
        for name, accuracy in accuracies.items()
        if accuracy
    ]
    terminal.table(title, rows, header=("crops", "top-1", "top-5", "loss", "ECE"))
    terminal.line(
        "ECE, the expected calibration error, is the mean difference between confidence and accuracy "
        f"over {CALIBRATION_BINS} bins."
    )
    terminal.line(
        f"At the temperature {evaluation.rejection.temperature:.2f}, fitted to these images, the loss "
        f"of the center crop is {evaluation.calibrated.loss:.3f} and its ECE "
        f"{evaluation.calibrated.calibration.error:.2%}."
    )
    _print_means(evaluation, terminal)
    _print_coverage(evaluation, terminal)
    _print_pairs(evaluation, terminal)
    _print_classes(evaluation, terminal)
    _print_maps(evaluation, alpha, terminal)


def _print_means(evaluation: Evaluation, terminal: Terminal) -> None:
    classes = evaluation.classes
    means = (classes.precisions, classes.recalls, classes.f1_scores)
    terminal.table(
        "means over the classes",
        [(f"{classes.balanced_accuracy:.2%}", *(f"{classes.macro(each):.2%}" for each in means))],
        header=("balanced accuracy", "macro precision", "macro recall", "macro F1"),
    )
    if never := classes.never_recognized_in_words(evaluation.class_names):
        terminal.line(f"{never}.")


def _print_coverage(evaluation: Evaluation, terminal: Terminal) -> None:
    rows: list[tuple[str, ...]] = []
    for share in _REJECTED:
        kept, accuracy = evaluation.coverage.at(share)
        rows.append((f"{share:.0%}", f"{kept:.1%}", as_text(accuracy, ".2%")))
    title = "accuracy where the least confident predictions are rejected"
    terminal.table(title, rows, header=("rejected", "kept", "top-1 of those"))


def print_foreign(foreign: ForeignImages, terminal: Terminal) -> None:
    """Prints how well images of none of the classes are told from the test images."""
    rows: list[tuple[str, ...]] = [
        (f"{share:.0%}", f"{rejected:.1%}") for share, rejected in foreign.rejected.items()
    ]
    title = f"{foreign.images:,} foreign images of {foreign.folder}, AUROC {foreign.auroc:.3f}"
    terminal.table(title, rows, header=("test images rejected", "foreign images rejected"))
    if foreign.unreadable:
        terminal.line(f"{foreign.unreadable:,} foreign images could not be read.")


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
        terminal.line("No classes were confused.")
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
                f"{classes.precisions[index]:.1%}",
                f"{classes.f1_scores[index]:.1%}",
                f"{classes.counts[index]:,}",
                evaluation.mostly_confused_with(index)[0] or MISSING,
            )
            for index in worst
        ],
        header=("class", "top-1", "precision", "F1", "images", "mostly confused with"),
    )


def _print_maps(evaluation: Evaluation, alpha: float, terminal: Terminal) -> None:
    true_map, predicted_map = evaluation.true_map, evaluation.predicted_map
    if true_map is None or predicted_map is None:
        terminal.line("The network has no class activation maps: their measures are left out.")
        return
    block = "without the block" if alpha == 1 else f"with the block, α = {alpha}"
    has_parts = bool(true_map.visible_parts or predicted_map.visible_parts)
    columns = 6 if has_parts else 5
    # With parts, just within 80 columns.
    header = ("map of", f"{MASS_SHARE:.0%} area", "entropy", "relative", "no mass", "parts in it")
    rows = [
        (
            name,
            as_text(summary.area),
            as_text(summary.entropy, ".3f"),
            as_text(summary.relative_entropy),
            f"{summary.without_mass:,}",
            as_text(summary.parts_share),
        )[:columns]
        for name, summary in (("the true class", true_map), ("the predicted class", predicted_map))
    ]
    terminal.table(f"class activation maps, trained {block}", rows, header=header[:columns])
    terminal.line(
        f"The area is the smallest that holds {MASS_SHARE:.0%} of the positive part of a map; relative "
        "entropy is 100% for a uniform map"
        + ("; the parts are the annotated ones that are visible." if has_parts else ".")
    )


def _of_all(what: str, shown: int, total: int) -> str:
    return what if shown == total else f"{what}, {shown:,} of {total:,}"

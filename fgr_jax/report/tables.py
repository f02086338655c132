"""The tables of a report: the metrics at the top, and all classes."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from fgr_jax.evaluate.diversity import MASS_SHARE
from fgr_jax.evaluate.evaluation import Evaluation, MapSummary
from fgr_jax.evaluate.missing import MISSING, as_text
from fgr_jax.report.paper import PaperAccuracy


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A row of the table of metrics: a value for each run, and the paper's."""

    name: str
    values: list[str]
    paper: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ClassRow:
    """A row of the table of classes."""

    name: str
    images: int
    # Of each run; NaN without images.
    accuracies: list[float]
    # The class that its images are mostly predicted as when they are not recognized; empty: none.
    confused_with: str
    # Such images.
    errors: int


def metrics(evaluations: Sequence[Evaluation], paper: PaperAccuracy | None) -> list[Metric]:
    """Returns the metrics of one run or two, by all crops where none is named."""
    main = [each.main for each in evaluations]
    rows = [
        Metric(
            "accuracy, one crop (the center)",
            [as_text(each.center_crop.top1) for each in evaluations],
            f"{paper.one_crop:.1f}%" if paper else "",
        )
    ]
    if evaluations[0].five_crops:
        rows.append(
            Metric(
                "accuracy, five crops",
                [as_text(each.top1) for each in main],
                f"{paper.five_crops:.1f}%" if paper and paper.five_crops else "",
            )
        )
    if len(evaluations[0].class_names) > 5:
        rows.append(Metric("top-5 accuracy", [as_text(each.top5) for each in main]))
    rows += [
        Metric("loss, cross-entropy", [as_text(each.loss, ".3f") for each in main]),
        Metric("expected calibration error", [as_text(each.calibration.error) for each in main]),
    ]
    return rows + _map_metrics([each.true_map for each in evaluations])


def _map_metrics(maps: Sequence[MapSummary | None]) -> list[Metric]:
    """Returns the metrics of the true class's maps, of those runs whose network has maps."""

    def metric(name: str, text: Callable[[MapSummary], str]) -> Metric:
        values = [MISSING if each is None else text(each) for each in maps]
        return Metric(f"map of the true class: {name}", values)

    present = [each for each in maps if each is not None]
    rows = []
    if present:
        rows += [
            metric(f"area that holds {MASS_SHARE:.0%} of it", lambda each: as_text(each.area)),
            metric("entropy, of the maximum", lambda each: as_text(each.relative_entropy)),
        ]
    if any(each.without_mass for each in present):
        rows.append(
            metric(
                "no positive cell, left out of these means", lambda each: f"{each.without_mass:,}"
            )
        )
    if any(each.visible_parts for each in present):
        rows.append(metric("annotated parts in that area", lambda each: as_text(each.parts_share)))
    return rows


def class_rows(evaluations: Sequence[Evaluation]) -> list[ClassRow]:
    """Returns a row for each class, in the order of the labels."""
    ours = evaluations[0]
    errors = ours.confusion - np.diag(np.diagonal(ours.confusion))
    rows = []
    for index, name in enumerate(ours.class_names):
        worst = int(errors[index].argmax())
        rows.append(
            ClassRow(
                name,
                int(ours.classes.counts[index]),
                [float(each.classes.accuracies[index]) for each in evaluations],
                ours.class_names[worst] if errors[index, worst] else "",
                int(errors[index, worst]),
            )
        )
    return rows

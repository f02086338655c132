"""The tables of a report: the metrics at the top, beside the paper's, and all classes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fgr_jax.config import Data
from fgr_jax.evaluate.diversity import MASS_SHARE
from fgr_jax.evaluate.evaluation import Evaluation, MapSummary
from fgr_jax.evaluate.tables import MISSING, as_text


class PaperAccuracy(NamedTuple):
    """Top-1 accuracy of ResNet-50 with the block and GCE at 448×448 pixels (tables 2 and 3), in %."""

    title: str  # of the data set
    one_crop: float
    five_crops: float | None


_PAPER = {
    "cub": PaperAccuracy("CUB-200-2011", 87.7, 88.6),
    "aircraft": PaperAccuracy("FGVC-Aircraft", 92.1, 93.5),
    "cars": PaperAccuracy("Stanford Cars", 94.3, 94.9),
    "dogs": PaperAccuracy("Stanford Dogs", 87.1, 87.7),
    "gtos_mobile": PaperAccuracy("GTOS-mobile", 85.0, None),
}


def paper_accuracy(data: Data) -> PaperAccuracy | None:
    """Returns the paper's results for a data set; None if it has none, or for another split."""
    is_papers = data.split == "given" and data.test_split == "test" and not data.fold
    return _PAPER.get(data.name) if is_papers else None


class Metric(NamedTuple):
    """A row of the table of metrics: a value for each run, and the paper's."""

    name: str
    values: list[str]
    paper: str = ""


def metrics(evaluations: Sequence[Evaluation], paper: PaperAccuracy | None) -> list[Metric]:
    """Returns the metrics of one or two runs, over all crops unless a metric names its crops."""
    main = [each.main for each in evaluations]
    one_crop = [as_text(each.center_crop.top1) for each in evaluations]
    of_paper = f"{paper.one_crop:.1f}%" if paper else ""
    rows = [Metric("accuracy, one crop (the center)", one_crop, of_paper)]
    if evaluations[0].five_crops:
        of_paper = f"{paper.five_crops:.1f}%" if paper and paper.five_crops else ""
        rows.append(Metric("accuracy, five crops", [as_text(each.top1) for each in main], of_paper))
    if len(evaluations[0].class_names) > 5:
        rows.append(Metric("top-5 accuracy", [as_text(each.top5) for each in main]))
    rows += [
        *_class_means(evaluations),
        Metric("loss, cross-entropy", [as_text(each.loss, ".3f") for each in main]),
        Metric("expected calibration error", [as_text(each.calibration.error) for each in main]),
    ]
    return rows + _map_metrics([each.true_map for each in evaluations])


def _class_means(evaluations: Sequence[Evaluation]) -> list[Metric]:
    classes = [each.classes for each in evaluations]
    return [
        Metric("balanced accuracy", [as_text(each.balanced_accuracy) for each in classes]),
        Metric("macro precision", [as_text(each.macro(each.precisions)) for each in classes]),
        Metric("macro recall", [as_text(each.macro(each.recalls)) for each in classes]),
        Metric("macro F1", [as_text(each.macro(each.f1_scores)) for each in classes]),
    ]


def _map_metrics(maps: Sequence[MapSummary | None]) -> list[Metric]:
    """Returns the metrics of the true class's maps, for runs whose network has maps."""

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
        name = "no positive cell, left out of these means"
        rows.append(metric(name, lambda each: f"{each.without_mass:,}"))
    if any(each.visible_parts for each in present):
        rows.append(metric("annotated parts in that area", lambda each: as_text(each.parts_share)))
    return rows


class ClassRow(NamedTuple):
    """A row of the table of classes."""

    name: str
    images: int
    accuracies: list[float]  # of each run; NaN without images
    precision: float  # of the first run, as the others
    f1: float
    confused_with: str  # as in `Evaluation.mostly_confused_with`
    errors: int


def class_rows(evaluations: Sequence[Evaluation]) -> list[ClassRow]:
    """Returns a row for each class, in the order of the labels."""
    ours = evaluations[0]
    return [
        ClassRow(
            name,
            int(ours.classes.counts[index]),
            [float(each.classes.accuracies[index]) for each in evaluations],
            float(ours.classes.precisions[index]),
            float(ours.classes.f1_scores[index]),
            *ours.mostly_confused_with(index),
        )
        for index, name in enumerate(ours.class_names)
    ]

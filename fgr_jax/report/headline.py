"""The figures at the top: each run's, and the paper's beside them."""

import dataclasses
import math
from collections.abc import Sequence

from fgr_jax.evaluate.diversity import MASS_SHARE
from fgr_jax.evaluate.evaluation import Evaluation
from fgr_jax.report.paper import PaperAccuracy


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A line of the headline table: a value for each run, and the paper's."""

    name: str
    values: list[str]
    paper: str = ""


def headline(evaluations: Sequence[Evaluation], paper: PaperAccuracy | None) -> list[Figure]:
    """The figures of one run or two. What is not named after one crop is by all that were shown."""
    one = [each.center_crop for each in evaluations]
    main = [each.main for each in evaluations]
    maps = [each.true_map for each in evaluations]
    figures = [
        Figure(
            "right, one crop (the center)",
            [_percent(each.top1) for each in one],
            f"{paper.one_crop:.1f}%" if paper else "",
        )
    ]
    if evaluations[0].five_crops:
        figures.append(
            Figure(
                "right, five crops",
                [_percent(each.top1) for each in main],
                f"{paper.five_crops:.1f}%" if paper and paper.five_crops else "",
            )
        )
    if len(evaluations[0].class_names) > 5:
        figures.append(
            Figure("among the first five guesses", [_percent(each.top5) for each in main])
        )
    figures += [
        Figure("loss, cross-entropy", [_number(each.loss) for each in main]),
        Figure("expected calibration error", [_percent(each.calibration.error) for each in main]),
        Figure(
            f"map of the true class: area that holds {MASS_SHARE:.0%} of it",
            [_percent(each.area) for each in maps],
        ),
        Figure(
            "map of the true class: entropy, of the highest possible",
            [_percent(each.relative_entropy) for each in maps],
        ),
    ]
    if any(each.without_mass for each in maps):
        figures.append(
            Figure(
                "map of the true class: nothing positive, and left out of these means",
                [f"{each.without_mass:,}" for each in maps],
            )
        )
    if any(each.visible_parts for each in maps):
        figures.append(
            Figure(
                "map of the true class: annotated parts in that area",
                [_percent(each.parts_share) for each in maps],
            )
        )
    return figures


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1%}"

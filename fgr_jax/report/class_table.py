"""How every class fares."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from fgr_jax.evaluate.evaluation import Evaluation


@dataclasses.dataclass(frozen=True, slots=True)
class ClassRow:
    """A class in the table of all classes."""

    name: str
    pictures: int
    accuracies: list[float | None]  # of each run; None without pictures
    taken_for: str  # the class that it is mostly taken for; empty: none
    errors: int  # as that class


def class_rows(evaluations: Sequence[Evaluation]) -> list[ClassRow]:
    """A row for each class, in the order of the labels."""
    evaluation = evaluations[0]
    errors = evaluation.confusion - np.diag(np.diagonal(evaluation.confusion))
    rows = []
    for index, name in enumerate(evaluation.class_names):
        worst = int(errors[index].argmax())
        rows.append(
            ClassRow(
                name,
                int(evaluation.classes.counts[index]),
                [
                    None if math.isnan(value) else float(value)
                    for value in (each.classes.accuracies[index] for each in evaluations)
                ],
                evaluation.class_names[worst] if errors[index, worst] else "",
                int(errors[index, worst]),
            )
        )
    return rows

"""Images whose label looks wrong, from the test split and, out of fold, from the training split."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fgr_jax.evaluate import measures
from fgr_jax.evaluate.evaluated_run import EvaluatedRun
from fgr_jax.evaluate.files import Columns
from fgr_jax.evaluate.label_issues import label_issues


class LabelIssue(NamedTuple):
    """An image whose label looks wrong."""

    run: int  # the place, among the runs, of the one that judges it
    image: int  # its index in the predictions
    name: str
    label: str
    prediction: str
    probability_of_label: float
    probability_of_prediction: float
    split: str


class LabelIssues(NamedTuple):
    """The images whose label looks wrong, most certain first."""

    found: list[LabelIssue]
    # For each split that was judged: its name, the images found, and the images.
    splits: list[tuple[str, int, int]]


def find_label_issues(ours: EvaluatedRun, folds: Sequence[EvaluatedRun]) -> LabelIssues:
    """Applies the rule of `label_issues` to test images and, together, to those of all folds.

    Each image is judged by a run that was not trained on it. The test split of `ours` is left out if it
    is one of the folds.

    Args:
      ours: a run; number 0 in `LabelIssue.run`.
      folds: others, of which each is tested on a fold of the training split; numbers 1 and so on.
    """
    folds = list(folds)
    groups = [list(enumerate(folds, start=1))] if folds else []
    if ours.source.split not in [each.source.split for each in folds]:
        groups.insert(0, [(0, ours)])
    found, splits = [], []
    for group in groups:
        runs = [each.evaluation for _, each in group]
        probabilities = np.concatenate(
            [measures.probabilities(each.predictions.scores) for each in runs]
        )
        labels = np.concatenate([each.predictions.per_image.label for each in runs])
        places = [
            (number, each, index)
            for number, each in group
            for index in range(len(each.evaluation.predictions.names))
        ]
        issues = label_issues(probabilities, labels).tolist()
        for issue in issues:
            number, each, index = places[issue]
            names, predicted = each.evaluation.class_names, int(probabilities[issue].argmax())
            found.append(
                LabelIssue(
                    number,
                    index,
                    each.evaluation.predictions.names[index],
                    names[labels[issue]],
                    names[predicted],
                    float(probabilities[issue, labels[issue]]),
                    float(probabilities[issue, predicted]),
                    each.source.split,
                )
            )
        of_folds = f"{group[0][1].run.config.data.train_split}, out of {len(group)} folds"
        split = ours.source.split if group[0][0] == 0 else of_folds
        splits.append((split, len(issues), len(labels)))
    found.sort(key=lambda each: each.probability_of_label - each.probability_of_prediction)
    return LabelIssues(found, splits)


def columns(issues: LabelIssues) -> Columns:
    """Returns the table of all of them, to go through."""
    found = issues.found
    return {
        "file": [each.name for each in found],
        "label": [each.label for each in found],
        "prediction": [each.prediction for each in found],
        "probability_of_label": [each.probability_of_label for each in found],
        "probability_of_prediction": [each.probability_of_prediction for each in found],
        "split": [each.split for each in found],
    }

"""Selects the test images and classes of a report by fixed rules: pure functions in NumPy."""

from collections.abc import Sequence

import numpy as np

from fgr_jax.evaluate.measures import ConfusedPair, Scores
from fgr_jax.per_class import Integers


def spread_over(true_probabilities: Scores, count: int) -> Integers:
    """Selects images from the most wrong to the most certain, evenly spaced.

    Args:
      true_probabilities: the probability of each true class, `[N]`; NaN counts as most wrong.
      count: the number of images.

    Returns:
      Indices, `[min(count, N)]`: the images are sorted by that probability and divided into `count`
      parts of equal size, and the middle of each part is selected.
    """
    total = len(true_probabilities)
    count = min(count, total)
    order = np.argsort(np.nan_to_num(true_probabilities, nan=-1), kind="stable")
    return order[(2 * np.arange(count) + 1) * total // (2 * max(count, 1))]


def most_confident(
    labels: Integers,
    predicted: Integers,
    confidences: Scores,
    *,
    true: int,
    predicted_as: int,
    count: int,
) -> Integers:
    """Selects images of class `true` that are predicted as `predicted_as`, most confident first.

    Args:
      labels: the true classes, `[N]`.
      predicted: the predicted classes, `[N]`.
      confidences: their probabilities, `[N]`.
      true: the index of a class.
      predicted_as: the index of the same class, or of another.
      count: the maximum number of images.
    """
    found = np.flatnonzero((labels == true) & (predicted == predicted_as))
    return found[np.argsort(-confidences[found], kind="stable")][:count]


def confusable_group(pairs: Sequence[ConfusedPair], limit: int) -> list[int]:
    """Finds the largest group of classes that are confused with one another, at most `limit` of them.

    Pairs are joined into groups, those with the most errors first, until a group would exceed `limit`.
    Among groups of equal size, the one with the most internal errors is selected. Without errors, the
    group is empty.
    """
    group_of = {each: frozenset({each}) for pair in pairs for each in (pair.first, pair.second)}
    for pair in pairs:
        joined = group_of[pair.first] | group_of[pair.second]
        if len(joined) > limit:
            break
        group_of.update(dict.fromkeys(joined, joined))

    def errors_inside(group: frozenset[int]) -> int:
        return sum(pair.count for pair in pairs if {pair.first, pair.second} <= group)

    groups = sorted(set(group_of.values()), key=min)
    return sorted(max(groups, key=lambda group: (len(group), errors_inside(group)), default=()))

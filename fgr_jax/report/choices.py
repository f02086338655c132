"""What of a test split is shown, by rules: nobody picks pictures by hand. Pure functions in NumPy."""

from collections.abc import Sequence

import numpy as np

from fgr_jax.evaluate.measures import ConfusedPair, Integers, Scores


def spread_over(true_probabilities: Scores, count: int) -> Integers:
    """Pictures from the one the network got most wrong to the one it is surest of, evenly spaced.

    Args:
      true_probabilities: of the true class, `[N]`; NaN counts as most wrong.
      count: how many.

    Returns:
      Indices, `[min(count, N)]`: of the pictures in the order of that probability, those in the middle
      of `count` parts of equal size.
    """
    total = len(true_probabilities)
    count = min(count, total)
    order = np.argsort(np.nan_to_num(true_probabilities, nan=-1), kind="stable")
    return order[(2 * np.arange(count) + 1) * total // (2 * max(count, 1))]


def surest_errors(
    labels: Integers,
    guesses: Integers,
    confidences: Scores,
    *,
    true: int,
    taken_for: int,
    count: int,
) -> Integers:
    """Pictures of class `true` that were taken for `taken_for`, those of highest confidence first.

    Args:
      labels: the true classes, `[N]`.
      guesses: the first guesses, `[N]`.
      confidences: their probabilities, `[N]`.
      true: a class.
      taken_for: another.
      count: how many at most.
    """
    errors = np.flatnonzero((labels == true) & (guesses == taken_for))
    return errors[np.argsort(-confidences[errors], kind="stable")][:count]


def confusable_group(pairs: Sequence[ConfusedPair], limit: int) -> list[int]:
    """The largest group of classes that are confused with one another, at most `limit` of them.

    Pairs are joined into groups, those with most errors first, until a group would be larger than
    `limit`. Of groups of equal size the one with the most errors inside it is taken. Without errors
    there is no group.
    """
    group_of: dict[int, frozenset[int]] = {}
    for pair in pairs:
        joined = group_of.get(pair.first, frozenset({pair.first})) | group_of.get(
            pair.second, frozenset({pair.second})
        )
        if len(joined) > limit:
            break
        group_of.update(dict.fromkeys(joined, joined))

    def errors_inside(group: frozenset[int]) -> int:
        return sum(pair.count for pair in pairs if {pair.first, pair.second} <= group)

    groups = sorted(set(group_of.values()), key=min)
    return sorted(max(groups, key=lambda group: (len(group), errors_inside(group)), default=()))

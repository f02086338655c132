"""Measures of predictions, in NumPy: pure functions of scores `[N, C]` and labels `[N]`."""

import dataclasses

import numpy as np
import numpy.typing as npt

from fgr_jax.per_class import Integers

Scores = npt.NDArray[np.floating]

CALIBRATION_BINS = 15
NEVER = np.iinfo(np.int64).max  # the rank of an example that is not a hit for any n


def ranks(scores: Scores, labels: Integers) -> Integers:
    """Counts the classes ranked before the true one, `[N]`; fewer than n is a top-n hit.

    A class ranks before another if it scores higher, or equally high at a lower index. Where the true
    score is not finite, the rank is `NEVER`. Evaluation during training follows the same rule.
    """
    true = np.take_along_axis(scores, labels[:, None], axis=1)
    lower_index = np.arange(scores.shape[1]) < labels[:, None]
    ahead = (scores > true) | ((scores == true) & lower_index)
    return np.where(np.isfinite(true[:, 0]), ahead.sum(axis=1), NEVER)


def top_classes(scores: Scores, count: int) -> Integers:
    """Returns the first `count` classes of each example, ordered as in `ranks`, `[N, min(count, C)]`."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :count]


def probabilities(scores: Scores) -> npt.NDArray[np.float64]:
    """Computes softmax(s), `[N, C]`."""
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True), dtype=np.float64)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropies(scores: Scores, labels: Integers) -> npt.NDArray[np.float64]:
    """Computes −ln softmax(s)_l, in nats, `[N]`."""
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    true = np.take_along_axis(shifted, labels[:, None], axis=1)[:, 0]
    return np.log(np.exp(shifted).sum(axis=1)) - true


@dataclasses.dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence and accuracy in B bins of confidence, (b/B, (b + 1)/B]."""

    counts: Integers  # examples in each bin, `[B]`
    # Their mean confidence and their accuracy, `[B]`; NaN in an empty bin.
    confidences: npt.NDArray[np.float64]
    accuracies: npt.NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: Σ_b n_b/N · |accuracy_b − confidence_b|."""
        filled = self.counts > 0
        gaps = np.abs(self.accuracies[filled] - self.confidences[filled])
        return float(np.sum(self.counts[filled] * gaps) / max(self.counts.sum(), 1))


def calibration(
    confidences: npt.NDArray[np.floating],
    is_correct: npt.NDArray[np.bool_],
    bins: int = CALIBRATION_BINS,
) -> Calibration:
    """Sorts examples by confidence, in (0, 1], into bins of equal width.

    Args:
      confidences: the probability of the predicted class, `[N]`.
      is_correct: whether the prediction is the true class, `[N]`.
      bins: the number of bins.
    """
    # The rounded edges, so that a confidence equal to an edge falls into the bin below.
    edges = np.arange(1, bins) / bins
    places = np.searchsorted(edges, confidences, side="left")
    counts = np.bincount(places, minlength=bins)

    def mean(values: npt.NDArray) -> npt.NDArray[np.float64]:
        return _ratio(np.bincount(places, weights=values, minlength=bins), counts)

    return Calibration(counts, mean(confidences), mean(is_correct))


@dataclasses.dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Two classes that were confused."""

    first: int  # the class of the lower index
    second: int
    first_as_second: int  # examples of the first that were predicted as the second
    second_as_first: int
    share: float  # of all errors

    @property
    def count(self) -> int:
        """The number of errors in both directions."""
        return self.first_as_second + self.second_as_first


def confused_pairs(confusion: Integers) -> list[ConfusedPair]:
    """Returns the pairs with errors, most errors first; ties go to the lower indices."""
    errors = confusion - np.diag(np.diagonal(confusion))
    both = np.triu(errors + errors.T, k=1)
    firsts, seconds = np.nonzero(both)
    order = np.argsort(-both[firsts, seconds], kind="stable")
    total = int(errors.sum())
    return [
        ConfusedPair(
            int(first),
            int(second),
            first_as_second=int(errors[first, second]),
            second_as_first=int(errors[second, first]),
            share=int(both[first, second]) / total,
        )
        for first, second in zip(firsts[order], seconds[order], strict=True)
    ]


def _ratio(sums: npt.NDArray, counts: Integers) -> npt.NDArray[np.float64]:
    """Computes sums / counts; NaN where the count is 0."""
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

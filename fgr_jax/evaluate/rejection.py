"""Confidence in a prediction, to reject images that belong to none of the classes.

The confidence is the probability of the most probable class, of a softmax at the temperature that fits
the test split best (Guo et al., ICML 2017): softmax(s / T). On birds of classes that a network was not
trained on, and on images that are not birds, it tells them from test images better than the highest
score or the energy logsumexp(s) of Liu et al. (NeurIPS 2020), and it tells errors from correct
predictions better, too.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.stats

from fgr_jax.evaluate.measures import Scores
from fgr_jax.per_class import Integers

Floats = npt.NDArray[np.float64]

_TEMPERATURES = (0.05, 20.0)  # the range in which the temperature is looked for
_STEPS = 100  # of the table of accuracies of the images that are kept


def fitted_temperature(scores: Scores, labels: Integers) -> float:
    """Returns the T in [0.05, 20] whose cross-entropy of softmax(s / T) is the smallest.

    Args:
      scores: s, `[N, C]`; rows with values that are NaN or infinite are left out.
      labels: `[N]`.

    Returns:
      T, or 1 without any rows.
    """
    finite = _is_finite(scores)
    shifted = scores[finite].astype(np.float64)
    if not len(shifted):
        return 1.0
    shifted -= shifted.max(axis=1, keepdims=True)
    mean_true = float(np.take_along_axis(shifted, labels[finite][:, None], axis=1).mean())

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        return float(np.log(np.exp(shifted * scale).sum(axis=1)).mean()) - scale * mean_true

    low, high = map(math.log, _TEMPERATURES)
    found = scipy.optimize.minimize_scalar(
        loss, bounds=(low, high), method="bounded", options={"xatol": 1e-9}
    )
    return math.exp(found.x)


def log_confidences(scores: Scores, temperature: float) -> Floats:
    """Computes ln of the largest probability of softmax(s / T), `[N]`.

    Its logarithm keeps probabilities apart that round to 1. −∞ where a score is NaN or infinite.
    """
    finite = _is_finite(scores)
    shifted = np.where(finite[:, None], scores, 0).astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    # The sum of the others; the largest itself is 1.
    np.put_along_axis(shifted, shifted.argmax(axis=1)[:, None], -np.inf, axis=1)
    others = np.exp(shifted / temperature).sum(axis=1)
    return np.where(finite, -np.log1p(others), -np.inf)


def _is_finite(scores: Scores) -> npt.NDArray[np.bool_]:
    """Returns whether all scores of each row are finite, `[N]`."""
    return np.asarray(np.isfinite(scores).all(axis=1))


@dataclasses.dataclass(frozen=True, slots=True)
class Rejection:
    """What the confidence in a prediction is compared with: that in the test images."""

    temperature: float
    test_confidences: (
        Floats  # the logarithms for the center crops of the test images, ascending, `[N]`
    )

    @classmethod
    def of(cls, scores: Scores, labels: Integers) -> "Rejection":
        """Fits the temperature to the scores of the test images, `[N, C]`."""
        temperature = fitted_temperature(scores, labels)
        return cls(temperature, np.sort(log_confidences(scores, temperature)))

    def percentiles(self, scores: Scores) -> Floats:
        """Returns the share of test images that have a lower confidence, for each of n images.

        Rejecting images below a percentile of x rejects a share of x of the test images.

        Args:
          scores: `[n, C]`.

        Returns:
          `[n]`, in [0, 1]; 0 where a score is NaN or infinite.
        """
        confidences = log_confidences(scores, self.temperature)
        lower = np.searchsorted(self.test_confidences, confidences, side="left")
        return lower / max(len(self.test_confidences), 1)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON object; −∞ becomes None."""
        values = self.test_confidences.tolist()
        return {
            "temperature": self.temperature,
            "test_log_confidences": [each if math.isfinite(each) else None for each in values],
        }

    @classmethod
    def from_json(cls, value: Any) -> "Rejection":
        """Reads what `to_json` returned.

        Raises:
          ValueError: `value` is something else.
        """
        try:
            values = [
                -math.inf if each is None else float(each) for each in value["test_log_confidences"]
            ]
            temperature = float(value["temperature"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"it lacks {error}") from error
        if values != sorted(values) or not temperature > 0:
            raise ValueError("its values are not those of a test split")
        return cls(temperature, np.array(values, np.float64))


@dataclasses.dataclass(frozen=True, slots=True)
class Coverage:
    """The accuracy of the test images that are kept, for each of 100 values of `reject_below`."""

    reject_below: Floats  # 0, 0.01, ...
    kept: Floats  # the share of the test images
    accuracies: Floats  # of those

    def at(self, reject_below: float) -> tuple[float, float]:
        """Returns share and accuracy of the images kept for one of these values."""
        place = round(reject_below * _STEPS)
        return float(self.kept[place]), float(self.accuracies[place])


def coverage(percentiles: Floats, is_correct: npt.NDArray[np.bool_]) -> Coverage:
    """Computes the curve of accuracy over coverage.

    Args:
      percentiles: of the test images, from `Rejection.percentiles`, `[N]`.
      is_correct: whether their predictions are, `[N]`.
    """
    thresholds = np.arange(_STEPS) / _STEPS
    order = np.argsort(percentiles, kind="stable")
    rejected = np.searchsorted(percentiles[order], thresholds, side="left")
    hits = np.append(np.cumsum(is_correct[order][::-1])[::-1], 0)  # of all from each place on
    kept = len(order) - rejected
    return Coverage(
        thresholds,
        kept / max(len(order), 1),
        np.where(kept > 0, hits[rejected] / np.maximum(kept, 1), np.nan),
    )


def auroc(known: Floats, foreign: Floats) -> float:
    """Computes the probability that a known image has a higher value than a foreign one.

    This is the area under the receiver operating characteristic; ties count half.

    Args:
      known: confidences or percentiles, `[N]`.
      foreign: likewise, `[M]`.

    Returns:
      A share in [0, 1]; NaN if N or M is 0.
    """
    if not (len(known) and len(foreign)):
        return math.nan
    ranks = scipy.stats.rankdata(np.concatenate([known, foreign]))
    smallest = len(known) * (len(known) + 1) / 2
    return float((ranks[: len(known)].sum() - smallest) / (len(known) * len(foreign)))

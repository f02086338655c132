"""Measures of predictions for each class, and their means over the classes, in NumPy."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.integer]

_NAMED = 5  # classes that are never recognized


def confusion_matrix(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """Counts the examples of class i that were predicted as class j, `[C, C]`."""
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclasses.dataclass(frozen=True, slots=True)
class PerClass:
    """Numbers of examples by class, `[C]` each.

    Where a measure would divide by 0, it is 0, as with scikit-learn's `zero_division=0`: the precision
    of a class that is never predicted, the recall of a class without examples. Means over the classes,
    the macro averages, leave out classes that neither have examples nor are predicted, as scikit-learn
    does.
    """

    counts: Integers  # examples of the class
    hits: Integers  # those of them that are predicted as it
    predicted: Integers  # examples that are predicted as it

    @property
    def accuracies(self) -> npt.NDArray[np.float64]:
        """The accuracy of each class, hits_c / counts_c; NaN for a class without examples."""
        return np.where(self.counts > 0, self.recalls, np.nan)

    @property
    def recalls(self) -> npt.NDArray[np.float64]:
        """The accuracy of each class; 0 for a class without examples."""
        return self.hits / np.maximum(self.counts, 1)

    @property
    def precisions(self) -> npt.NDArray[np.float64]:
        """The share of correct ones among the predictions of each class."""
        return self.hits / np.maximum(self.predicted, 1)

    @property
    def f1_scores(self) -> npt.NDArray[np.float64]:
        """The harmonic mean of precision and recall of each class."""
        return 2 * self.hits / np.maximum(self.counts + self.predicted, 1)

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall over the classes with examples; 0 without any."""
        return _mean(self.recalls[self.counts > 0])

    def macro(self, values: npt.NDArray[np.float64]) -> float:
        """Returns the mean of recalls, precisions or F1 scores over the classes."""
        return _mean(values[self.counts + self.predicted > 0])

    @property
    def never_recognized(self) -> Integers:
        """The classes with examples, none of which is predicted correctly."""
        return np.flatnonzero((self.counts > 0) & (self.hits == 0))

    def never_recognized_in_words(self, class_names: Sequence[str]) -> str:
        """Returns how many classes are never recognized, and the first of them; "" if all are."""
        never = self.never_recognized
        if not len(never):
            return ""
        named = ", ".join(class_names[index] for index in never[:_NAMED])
        named += f" and {len(never) - _NAMED:,} more" if len(never) > _NAMED else ""
        tested = np.count_nonzero(self.counts)
        verb = "is" if len(never) == 1 else "are"
        return f"{len(never):,} of {tested:,} classes {verb} never recognized: {named}"


def per_class(confusion: Integers) -> PerClass:
    """Computes the numbers of examples from a confusion matrix `[C, C]`."""
    return PerClass(confusion.sum(axis=1), np.diagonal(confusion).copy(), confusion.sum(axis=0))


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else 0.0

"""Labels that look wrong: the rule of confident learning (Northcutt et al., JAIR 2021, section 3.1)."""

import numpy as np

from fgr_jax.evaluate.measures import Scores
from fgr_jax.per_class import Integers


def label_issues(probabilities: Scores, labels: Integers) -> Integers:
    """Finds examples whose label a network that was not trained on them confidently disagrees with.

    The threshold of class j is the mean probability of j over the examples with label j: how certain the
    network usually is of it. An example is confidently of class j if its probability of j reaches the
    threshold; of several such classes, the most probable one counts. Its label looks wrong if that class
    is another, and if the network predicts another.

    Args:
      probabilities: of each class, `[N, C]`. Rows with NaNs are never listed.
      labels: `[N]`, in [0, C).

    Returns:
      Their indices, the largest difference between the probabilities of the predicted class and of the
      label first.
    """
    if not len(labels):
        return np.zeros(0, np.int64)
    rows = np.arange(len(labels))
    of_label = probabilities[rows, labels]
    classes = probabilities.shape[1]
    finite = np.isfinite(probabilities).all(axis=1)
    counts = np.bincount(labels[finite], minlength=classes)
    sums = np.bincount(labels[finite], weights=of_label[finite], minlength=classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    is_confident = confident.max(axis=1) >= 0
    predicted = probabilities.argmax(axis=1)
    found = finite & is_confident & (confident.argmax(axis=1) != labels) & (predicted != labels)
    issues = np.flatnonzero(found)
    margins = probabilities[issues, predicted[issues]] - of_label[issues]
    return issues[np.argsort(-margins, kind="stable")]

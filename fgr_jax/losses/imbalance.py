"""Losses for classes of different sizes: logit adjustment and class weights.

Both are functions of the number of training images of each class. A class without any counts as one of
a single image, so that all values are finite.
"""

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.integer]


def logit_adjustments(class_counts: Counts, strength: float) -> npt.NDArray[np.float64]:
    """Computes what is added to the scores in training, τ·ln π_c (Menon et al., ICLR 2021, equation 10).

    π_c = n_c / N is the share of class c among the training images. Cross-entropy of the adjusted scores
    s_c + τ·ln π_c makes s itself, which predicts, the scores of balanced classes: for τ = 1 it is
    consistent for the balanced error. The paper derives it for the softmax over all classes.

    GCE of the adjusted scores is logsumexp({s_l + τ·ln π_l} ∪ top-k of {s_i + τ·ln π_i : i ≠ l}) −
    s_l − τ·ln π_l: the k hardest negatives are those of the highest adjusted scores, which are the
    negatives that the loss and its gradient weigh most. With k ≥ C − 1 it is the paper's.

    Args:
      class_counts: n, the number of training images of each class, `[C]`.
      strength: τ ≥ 0.

    Returns:
      `[C]`; zeros for τ = 0.
    """
    counts = np.maximum(class_counts, 1).astype(np.float64)
    return strength * np.log(counts / counts.sum())


def class_weights(class_counts: Counts, power: float) -> npt.NDArray[np.float64]:
    """Computes factors on the losses of each class's images, proportional to n_c^(−p).

    Their mean over all training images is 1, so that the learning rate keeps its meaning. The sum over a
    batch is divided by its number of images, not by the sum of their weights.

    Args:
      class_counts: n, the number of training images of each class, `[C]`.
      power: p in [0, 1]; with 1, all classes contribute equally.

    Returns:
      `[C]`; ones for p = 0.
    """
    weights = np.maximum(class_counts, 1).astype(np.float64) ** -power
    return weights * (class_counts.sum() / (class_counts * weights).sum())

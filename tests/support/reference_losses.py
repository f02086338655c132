"""A slow float64 reference of the losses that GCE is compared with, and of smooth GCE.

Written from the papers and the decisions in docs/paper.md only, to test an implementation against.
It wants plain
loops that can be read beside the formulas; nothing here is fast. Only NumPy, the standard library
and reference.py are used.

Notation: B examples, C classes, D features; logits s, [B, C]; p = softmax(s) over the classes;
labels y in 0 .. C - 1. No function draws random numbers or changes its arguments. Losses are per
example, [B], except pairwise_confusion, which is one number for the batch. Inputs may be finite or
NaN, and a NaN logit or feature makes its example's loss NaN; infinities are outside this reference.
"""

import math
from collections.abc import Callable

import numpy as np
from reference import Floats, Labels, cross_entropy, hardest_negatives


def label_smoothing_cross_entropy(logits: Floats, labels: Labels, smoothing: float) -> Floats:
    """Cross-entropy against (1 - e) * onehot(y) + e / C, e the smoothing (Szegedy et al. 2016, §7).

    logits: [B, C]; labels: integers [B]; smoothing in 0 .. 1. Returns float64 [B]:
    -sum over c of q_c * log(p_c), q_c = (1 - e) * [c = y] + e / C. The e is spread over all C
    classes, the ground truth's own included, as in the paper (its q'(k), with u(k) = 1 / K).
    """
    logits, labels = _as_rows_and_labels(logits, labels, "logits", classes=None)
    if not 0.0 <= smoothing <= 1.0:
        raise ValueError(f"smoothing must be in 0 .. 1, got {smoothing}")
    batch, classes = logits.shape
    losses = np.zeros(batch, dtype=np.float64)
    for b in range(batch):
        log_p = _log_softmax(logits[b])
        for c in range(classes):
            target = smoothing / classes
            if c == labels[b]:
                target += 1.0 - smoothing
            losses[b] -= target * log_p[c]
    return losses


def smooth_gce(logits: Floats, labels: Labels, k: int, rest_weight: float) -> Floats:
    """GCE whose other negatives stay in the denominator with a weight w = rest_weight.

    logits: [B, C]; labels: integers [B]; k at least 1; rest_weight in 0 .. 1. Returns float64 [B]:
    logsumexp of {s_y}, {s_i : i among the k hardest negatives} and {s_i + log w : every other
    negative}, less s_y. w = 1 is reference.cross_entropy (equation 9) and w = 0 is
    reference.gradient_boosting_cross_entropy (equation 12), both bit for bit. Not in the paper.

    The k hardest are reference.hardest_negatives, ties to the lower class index. Which of two tied
    negatives is taken changes the gradient, not the loss.
    """
    hardest = hardest_negatives(logits, labels, k)
    logits, labels = _as_rows_and_labels(logits, labels, "logits", classes=None)
    if not 0.0 <= rest_weight <= 1.0:
        raise ValueError(f"rest_weight must be in 0 .. 1, got {rest_weight}")
    batch, classes = logits.shape
    losses = np.zeros(batch, dtype=np.float64)
    for b in range(batch):
        terms = []
        for c in range(classes):
            score = float(logits[b, c])
            if c == labels[b] or hardest[b, c]:
                terms.append(score)
            elif rest_weight > 0.0:
                terms.append(score + math.log(rest_weight))
        losses[b] = _logsumexp_less(terms, float(logits[b, labels[b]]))
    return losses


def smoothed_gce(
    logits: Floats, labels: Labels, k: int, smoothing: float, rest_weight: float = 0.0
) -> Floats:
    """Smooth GCE against a target with label smoothing over the classes of its softmax.

    logits: [B, C]; labels: integers [B]; k at least 1; smoothing e and rest_weight w in 0 .. 1.
    Returns float64 [B]: -sum over c of q_c * (s_c - logsumexp of the weighted scores). With v_c = 1
    for the truth and the k hardest negatives and w for the others, the target is
    q_c = (1 - e) * [c = y] + e * v_c / sum of v. For w = 0 these are 1 - e + e / (k + 1) and
    e / (k + 1). Not in the paper.
    """
    hardest = hardest_negatives(logits, labels, k)
    of_truth = smooth_gce(logits, labels, k, rest_weight)
    losses = np.zeros(len(labels), dtype=np.float64)
    for b in range(len(labels)):
        weights = [
            1.0 if c == labels[b] or hardest[b, c] else rest_weight for c in range(logits.shape[1])
        ]
        normalizer = of_truth[b] + float(logits[b, labels[b]])
        for c, weight in enumerate(weights):
            target = smoothing * weight / sum(weights)
            if c == labels[b]:
                target += 1.0 - smoothing
            if target > 0.0:
                losses[b] += target * (normalizer - float(logits[b, c]))
    return losses


def max_entropy(logits: Floats, labels: Labels, gamma: float) -> Floats:
    """MaxEnt: cross-entropy less gamma times the entropy of p (Dubey et al., NeurIPS 2018).

    logits: [B, C]; labels: integers [B]. Returns float64 [B]:
    -log(p_y) - gamma * H(p), with H(p) = -sum over c of p_c * log(p_c) in nats.
    A p_c that rounds to 0 adds 0, since log(p_c) itself stays finite.
    """
    losses = cross_entropy(logits, labels)
    logits, labels = _as_rows_and_labels(logits, labels, "logits", classes=None)
    for b in range(logits.shape[0]):
        entropy = 0.0
        for log_p in _log_softmax(logits[b]):
            entropy -= math.exp(log_p) * log_p
        losses[b] -= gamma * entropy
    return losses


def pairwise_confusion(logits: Floats, labels: Labels, weight: float) -> float:
    """Cross-entropy plus Euclidean confusion of the batch's two halves (Dubey et al., ECCV 2018).

    logits: [B, C]; labels: integers [B]; B at least 1. Returns one number:
    mean of -log(p_y) + weight * mean over the pairs of ||p_i - p_j||_2, where i < B // 2 and
    j = i + B // 2, and a pair is kept only if y_i != y_j. With no pair kept the second term is 0.
    With B odd the last row has no partner, and counts in the cross-entropy alone.

    Two things here are decisions of this project and not the authors'. The mean is over the pairs
    that are
    kept, so that the weight means the same whatever share of the pairs is left out; the authors'
    public code divides by B, which is half the mean over all B // 2 pairs, a left-out pair
    counting as 0. And the norm is not squared, as in their PyTorch code; their Caffe code squares
    it. The authors' weight w, on their PyTorch code, is w / 2 here while no pair is left out.

    The norm has no gradient where p_i = p_j. An implementation should give 0 there, the smallest
    subgradient; gradient() comes close to that 0 only to about its step times the weight.
    """
    losses = cross_entropy(logits, labels)
    logits, labels = _as_rows_and_labels(logits, labels, "logits", classes=None)
    batch, classes = logits.shape
    if batch < 1:
        raise ValueError("pairwise_confusion needs at least one example")
    half = batch // 2
    distances = []
    for i in range(half):
        j = i + half
        if labels[i] == labels[j]:
            continue
        log_p, log_q = _log_softmax(logits[i]), _log_softmax(logits[j])
        squared = 0.0
        for c in range(classes):
            squared += (math.exp(log_p[c]) - math.exp(log_q[c])) ** 2
        distances.append(math.sqrt(squared))
    confusion = sum(distances) / len(distances) if distances else 0.0
    return float(np.mean(losses)) + weight * confusion


def center_loss(features: Floats, centers: Floats, labels: Labels) -> Floats:
    """Center loss: half the squared distance to the own class's center (Wen et al. 2016, eq. 2).

    features: x, [B, D]; centers: c, [C, D]; labels: integers [B]. Returns float64 [B]:
    1/2 * ||x - c_y||_2^2. No cross-entropy and no weight: the caller's loss is equation 5,
    CE + lambda * this, and its mean over the batch (equation 2 sums; the authors' code averages).
    """
    centers = _as_matrix(centers, "centers")
    features, labels = _as_rows_and_labels(features, labels, "features", len(centers))
    _require_same_width(features, centers)
    losses = np.zeros(features.shape[0], dtype=np.float64)
    for b in range(features.shape[0]):
        losses[b] = 0.5 * _squared_distance(features[b], centers[labels[b]])
    return losses


def center_update(features: Floats, centers: Floats, labels: Labels, rate: float) -> Floats:
    """One step of the centers: c_j - rate * delta_j (Wen et al. 2016, equation 4, algorithm 1).

    features: x, [B, D]; centers: c, [C, D]; labels: integers [B]. Returns new centers, [C, D]:
    delta_j = sum over the examples with y = j of (c_j - x) / (1 + n_j), n_j their number. A class
    without an example stays as it is. All c_j on the right are the old ones, the same as the loss
    of that step was taken with.
    """
    centers = _as_matrix(centers, "centers")
    features, labels = _as_rows_and_labels(features, labels, "features", len(centers))
    _require_same_width(features, centers)
    updated = centers.copy()
    for j in range(centers.shape[0]):
        total = np.zeros(centers.shape[1], dtype=np.float64)
        count = 0
        for b in range(features.shape[0]):
            if labels[b] == j:
                total += centers[j] - features[b]
                count += 1
        if count > 0:
            updated[j] = centers[j] - rate * total / (1 + count)
    return updated


def large_margin_gaussian_mixture(
    features: Floats, means: Floats, labels: Labels, margin: float, weight: float
) -> Floats:
    """L-GM loss, identity covariances and equal priors (Wan et al., CVPR 2018).

    features: x, [B, D]; means: mu, [C, D]; labels: integers [B]; margin m at least 0.
    Returns float64 [B]: -log(exp(z_y) / sum over c of exp(z_c)) + weight * d_y, where
    d_c = 1/2 * ||x - mu_c||_2^2, z_c = -d_c for c != y and z_y = -(1 + m) * d_y.
    The first term is the classification loss with margin, the second the likelihood
    regularisation less its constant D/2 * log(2 pi).
    """
    means = _as_matrix(means, "means")
    features, labels = _as_rows_and_labels(features, labels, "features", len(means))
    _require_same_width(features, means)
    if margin < 0.0:
        raise ValueError(f"margin must be at least 0, got {margin}")
    losses = np.zeros(features.shape[0], dtype=np.float64)
    for b in range(features.shape[0]):
        label = int(labels[b])
        logits = []
        for c in range(means.shape[0]):
            half_squared = 0.5 * _squared_distance(features[b], means[c])
            logits.append(-(1.0 + margin) * half_squared if c == label else -half_squared)
        own = 0.5 * _squared_distance(features[b], means[label])
        losses[b] = _logsumexp_less(logits, logits[label]) + weight * own
    return losses


def gradient(
    function: Callable[..., Floats | float],
    array: Floats,
    *arguments: object,
    step: float = 2.0**-9,
) -> Floats:
    """The gradient of the sum of function(array, *arguments) with respect to array.

    array: any shape; the result has the same. For a per-example loss [B] of an array [B, ...], row
    b is the gradient of example b's own loss (no mean over the batch). For another argument than
    the first, pass a lambda: gradient(lambda c: center_loss(x, c, y), centers).

    Central differences of steps h and h / 2, extrapolated (Richardson) so that the error is of
    order h^4, and the rounding error about the loss times 1e-13. Within 1e-9 of the true gradient
    for the losses above, with inputs of ordinary size (losses below about 1e3) and no kink near
    the point: a change of the k hardest negatives within h, or a pair of near-equal p.
    """
    array = np.array(array, dtype=np.float64)
    result = np.zeros(array.shape, dtype=np.float64)
    for index in np.ndindex(array.shape):
        coarse = _central_difference(function, array, index, arguments, step)
        fine = _central_difference(function, array, index, arguments, step / 2.0)
        result[index] = (4.0 * fine - coarse) / 3.0
    return result


def _central_difference(
    function: Callable[..., Floats | float],
    array: Floats,
    index: tuple[int, ...],
    arguments: tuple[object, ...],
    step: float,
) -> float:
    above, below = array.copy(), array.copy()
    above[index] += step
    below[index] -= step
    # Subtracted before they are summed, so that the examples it does not touch cancel exactly.
    difference = np.asarray(function(above, *arguments)) - np.asarray(function(below, *arguments))
    return float(np.sum(difference)) / float(above[index] - below[index])


def _log_softmax(scores: Floats) -> list[float]:
    """log(p_c) for each c; scores: [C]."""
    terms = [float(score) for score in scores]
    return [-_logsumexp_less(terms, term) for term in terms]


def _logsumexp_less(terms: list[float], score: float) -> float:
    """log(sum of exp(term)) - score, NaN if any term is.

    With m the largest term, its first occurrence left out of the sum, this is
    (m - score) + log(1 + sum over the others of exp(term - m)), which neither overflows nor loses a
    small loss to rounding.
    """
    if any(math.isnan(term) for term in terms):
        return math.nan
    top = terms.index(max(terms))
    others = 0.0
    for position, term in enumerate(terms):
        if position != top:
            others += math.exp(term - terms[top])
    return (terms[top] - score) + math.log1p(others)


def _squared_distance(x: Floats, y: Floats) -> float:
    """||x - y||_2^2; x, y: [D]."""
    total = 0.0
    for d in range(x.shape[0]):
        total += float(x[d] - y[d]) ** 2
    return total


def _as_matrix(values: Floats, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name} must have 2 dimensions, got shape {array.shape}")
    return array


def _as_rows_and_labels(
    rows: Floats, labels: Labels, name: str, classes: int | None
) -> tuple[Floats, Labels]:
    """Checked rows [B, .] and labels [B] in 0 .. classes - 1; None: as many classes as columns."""
    rows = _as_matrix(rows, name)
    labels = np.asarray(labels)
    if classes is None:
        classes = rows.shape[1]
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != rows.shape[:1]:
        raise ValueError(f"labels must have shape {rows.shape[:1]}, got {labels.shape}")
    for label in labels:
        if not 0 <= label < classes:
            raise ValueError(f"labels must be in 0 .. {classes - 1}, got {label}")
    return rows, labels


def _require_same_width(features: Floats, centers: Floats) -> None:
    if features.shape[1] != centers.shape[1]:
        raise ValueError(f"{features.shape[1]} features, but centers of {centers.shape[1]}")

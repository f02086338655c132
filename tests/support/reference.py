"""A slow float64 reference of the paper's sections 3.1 and 3.2 (equations 1 to 14).

Written from the paper and the decisions in docs/paper.md only, to test an implementation against.
It wants plain
loops that can be read beside the equations; nothing here is fast. Only NumPy and the standard
library are used.

Notation: B images, H x W map cells, C classes, G the patch size. Maps are channels last,
[B, H, W, C] (the paper's M is C x H x W), and classes are numbered from 0 (the paper's from 1).
No function draws random numbers, changes its arguments, or averages over the batch.

Scores may be finite or NaN; infinite scores are outside this reference.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Labels = NDArray[np.integer]


def peak_map(maps: Floats) -> Bools:
    """Equation 1: P_c(i, j) = 1 where M_c(i, j) = max(M_c), every tie included.

    maps: [B, H, W, C]. Returns bool [B, H, W, C]. A map that holds a NaN has no peak.
    """
    maps = _as_float64(maps, "maps", 4)
    batch, height, width, classes = maps.shape
    peaks = np.zeros(maps.shape, dtype=np.bool_)
    for b in range(batch):
        for c in range(classes):
            highest = np.max(maps[b, :, :, c])  # NaN if any cell is NaN
            for i in range(height):
                for j in range(width):
                    peaks[b, i, j, c] = maps[b, i, j, c] == highest
    return peaks


def suppression_mask(maps: Floats, peak_draws: Bools, patch_draws: Bools, patch_size: int) -> Bools:
    """Equations 2 to 6: B_c = B'_c + B''_c, from draws made outside.

    maps: [B, H, W, C].
    peak_draws: bool [B, C], the r_c of equation 2, one per image and class.
    patch_draws: bool [B, ceil(H / G), ceil(W / G), C], equation 4's draws, one per image, patch
        and class. Patch (row, column) covers the cells with i // G = row and j // G = column, so
        the last patch of a row or column may be cut off at the edge.
    patch_size: G, at least 1.
    Returns bool [B, H, W, C], True where the cell is suppressed.

    Equation 5 takes every peak cell out of the patch mask, so B'_c and B''_c never overlap, and
    the sum in equation 6 is 0 or 1: a peak cell follows r_c alone, any other cell its patch alone.
    """
    maps = _as_float64(maps, "maps", 4)
    if patch_size < 1:
        raise ValueError(f"patch_size must be at least 1, got {patch_size}")
    batch, height, width, classes = maps.shape
    patch_rows = math.ceil(height / patch_size)
    patch_columns = math.ceil(width / patch_size)
    peak_draws = _as_bool(peak_draws, "peak_draws", (batch, classes))
    patch_draws = _as_bool(patch_draws, "patch_draws", (batch, patch_rows, patch_columns, classes))
    peaks = peak_map(maps)
    mask = np.zeros(maps.shape, dtype=np.bool_)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for c in range(classes):
                    if peaks[b, i, j, c]:
                        mask[b, i, j, c] = peak_draws[b, c]  # equation 2
                    else:
                        patch = (b, i // patch_size, j // patch_size, c)
                        mask[b, i, j, c] = patch_draws[patch]  # equations 4 and 5
    return mask


def diversify(maps: Floats, mask: Bools, alpha: float) -> Floats:
    """Equation 7: M'_c(i, j) = alpha * M_c(i, j) where the mask is 1, else M_c(i, j).

    maps: [B, H, W, C]; mask: bool [B, H, W, C]. Returns float64 [B, H, W, C].
    """
    maps = _as_float64(maps, "maps", 4)
    mask = _as_bool(mask, "mask", maps.shape)
    result = maps.copy()
    for cell in np.ndindex(maps.shape):
        if mask[cell]:
            result[cell] = alpha * maps[cell]
    return result


def diversify_gradient(mask: Bools, alpha: float, cotangent: Floats) -> Floats:
    """The gradient of equation 7 with respect to M, the mask taken as a constant.

    mask: bool [B, H, W, C]; cotangent: [B, H, W, C], the loss's gradient with respect to M'.
    Returns float64 [B, H, W, C]: alpha * cotangent where the mask is 1, else cotangent.
    """
    cotangent = _as_float64(cotangent, "cotangent", 4)
    mask = _as_bool(mask, "mask", cotangent.shape)
    result = cotangent.copy()
    for cell in np.ndindex(cotangent.shape):
        if mask[cell]:
            result[cell] = alpha * cotangent[cell]
    return result


def class_scores(maps: Floats) -> Floats:
    """Equation 8: s_c is the mean of M'_c over all H x W cells.

    maps: [B, H, W, C] (M' in training, M itself at test). Returns float64 [B, C].
    """
    maps = _as_float64(maps, "maps", 4)
    batch, height, width, classes = maps.shape
    scores = np.zeros((batch, classes), dtype=np.float64)
    for b in range(batch):
        for c in range(classes):
            total = 0.0
            for i in range(height):
                for j in range(width):
                    total += float(maps[b, i, j, c])
            scores[b, c] = total / (height * width)
    return scores


def cross_entropy(scores: Floats, labels: Labels) -> Floats:
    """Equation 9: CE(s, l) = -log(exp(s_l) / sum over all of J of exp(s_i)).

    scores: [B, C]; labels: integers [B], each in 0 .. C - 1. Returns float64 [B].
    """
    scores, labels = _as_scores_and_labels(scores, labels)
    return _losses(scores, labels, np.ones(scores.shape, dtype=np.bool_))


def cross_entropy_gradient(scores: Floats, labels: Labels) -> Floats:
    """Equation 13: dCE/ds_c = exp(s_c) / sum over J of exp(s_i), less 1 for c = l.

    scores: [B, C]; labels: integers [B]. Returns float64 [B, C]; row b is the gradient of example
    b's own loss (no mean over the batch).
    """
    scores, labels = _as_scores_and_labels(scores, labels)
    return _gradients(scores, labels, np.ones(scores.shape, dtype=np.bool_))


def hardest_negatives(scores: Floats, labels: Labels, k: int) -> Bools:
    """The set J'_> of equation 10, as the paper's text has it: the k hardest negatives.

    scores: [B, C]; labels: integers [B]; k at least 1. Returns bool [B, C] with exactly
    min(k, C - 1) True in each row, never the ground truth. Of equal scores the lower class index
    is taken first (jax.lax.top_k's order); 0.0 and -0.0 are equal; a NaN ranks above any number.

    Equation 10 as printed keeps every i in J with s_i >= t_k, so it would let in the ground truth
    and more than k tied negatives; docs/paper.md decides against it.
    """
    scores, labels = _as_scores_and_labels(scores, labels)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    batch, classes = scores.shape
    hardest = np.zeros(scores.shape, dtype=np.bool_)
    for b in range(batch):
        for _ in range(min(k, classes - 1)):
            best = -1
            for c in range(classes):  # upwards, and only a harder class replaces the best so far
                if c == labels[b] or hardest[b, c]:
                    continue
                if best < 0 or _harder(float(scores[b, c]), float(scores[b, best])):
                    best = c
            hardest[b, best] = True
    return hardest


def gradient_boosting_cross_entropy(scores: Floats, labels: Labels, k: int) -> Floats:
    """Equation 12: GCE(s, l) = -log(exp(s_l) / (exp(s_l) + sum over J'_> of exp(s_i))).

    scores: [B, C]; labels: integers [B]; k at least 1. Returns float64 [B]. A row with a NaN
    score has a NaN loss. For k >= C - 1 this is cross_entropy, bit for bit.
    """
    scores, labels = _as_scores_and_labels(scores, labels)
    return _losses(scores, labels, hardest_negatives(scores, labels, k))


def gradient_boosting_cross_entropy_gradient(scores: Floats, labels: Labels, k: int) -> Floats:
    """Equation 14: dGCE/ds_c = exp(s_c) / (exp(s_l) + sum over J'_> of exp(s_i)), less 1 for c = l.

    scores: [B, C]; labels: integers [B]; k at least 1. Returns float64 [B, C]; row b is the
    gradient of example b's own loss (no mean over the batch). The case that equation 14 leaves
    out, a negative class outside J'_>, has gradient 0.
    """
    scores, labels = _as_scores_and_labels(scores, labels)
    return _gradients(scores, labels, hardest_negatives(scores, labels, k))


def _harder(score: float, other: float) -> bool:
    """Whether score ranks strictly above other, a NaN above any number."""
    if math.isnan(other):
        return False
    return math.isnan(score) or score > other


def _losses(scores: Floats, labels: Labels, negatives: Bools) -> Floats:
    """-log(exp(s_l) / (exp(s_l) + sum over negatives of exp(s_i))) for each row, [B].

    negatives: bool [B, C]; the ground truth's own entry is ignored. With m the largest score in
    the denominator, reached first at class t, the loss is
    (m - s_l) + log(1 + sum over the others, without t, of exp(s_i - m)),
    which neither overflows nor loses a small loss to rounding.
    """
    losses = np.zeros(scores.shape[0], dtype=np.float64)
    for b in range(scores.shape[0]):
        label = int(labels[b])
        members = _members(label, negatives[b])
        top = _top_member(scores[b], members)
        highest = float(scores[b, top])
        others = 0.0
        for c in members:
            if c != top:
                others += math.exp(float(scores[b, c]) - highest)
        losses[b] = (highest - float(scores[b, label])) + math.log1p(others)
    return losses


def _gradients(scores: Floats, labels: Labels, negatives: Bools) -> Floats:
    """The gradient of _losses with respect to the scores, [B, C]; 0 outside the denominator.

    The ground truth's entry, p_l - 1, is taken as minus the sum of the other entries: the same
    number, without the cancellation where p_l is close to 1.
    """
    gradients = np.zeros(scores.shape, dtype=np.float64)
    for b in range(scores.shape[0]):
        label = int(labels[b])
        members = _members(label, negatives[b])
        highest = float(scores[b, _top_member(scores[b], members)])
        denominator = 0.0
        for c in members:
            denominator += math.exp(float(scores[b, c]) - highest)
        of_negatives = 0.0
        for c in members:
            if c != label:
                exponential = math.exp(float(scores[b, c]) - highest)
                gradients[b, c] = exponential / denominator
                of_negatives += exponential
        # 0.0 - x, not -x: a lone ground truth then has gradient 0.0 rather than -0.0.
        gradients[b, label] = 0.0 - of_negatives / denominator
    return gradients


def _members(label: int, negatives: Bools) -> list[int]:
    """The classes of a row's denominator in ascending order; negatives: bool [C]."""
    return [c for c in range(negatives.shape[0]) if c == label or negatives[c]]


def _top_member(scores: Floats, members: list[int]) -> int:
    """The member with the highest score (scores: [C]), the first of equals, a NaN above all."""
    top = members[0]
    for c in members[1:]:
        if _harder(float(scores[c]), float(scores[top])):
            top = c
    return top


def _as_float64(values: Floats, name: str, dimensions: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != dimensions:
        raise ValueError(f"{name} must have {dimensions} dimensions, got shape {array.shape}")
    return array


def _as_bool(values: Bools, name: str, shape: tuple[int, ...]) -> Bools:
    array = np.asarray(values)
    if array.dtype != np.bool_:
        raise ValueError(f"{name} must be bool, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
    return array


def _as_scores_and_labels(scores: Floats, labels: Labels) -> tuple[Floats, Labels]:
    scores = _as_float64(scores, "scores", 2)
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}")
    if labels.shape != scores.shape[:1]:
        raise ValueError(f"labels must have shape {scores.shape[:1]}, got {labels.shape}")
    for label in labels:
        if not 0 <= label < scores.shape[1]:
            raise ValueError(f"labels must be in 0 .. {scores.shape[1] - 1}, got {label}")
    return scores, labels

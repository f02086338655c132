"""Gradient-boosting cross-entropy, GCE (paper §3.2, equations 10–12)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fgr_jax import arguments
from fgr_jax.losses.ce import (
    at_least_float32,
    cross_entropy,
    is_true_class,
    log_sum_exp_above,
    true_score_of,
)


def gradient_boosting_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    k: int,
    *,
    rest_weight: ArrayLike = 0.0,
    label_smoothing: ArrayLike = 0.0,
) -> jax.Array:
    """Computes gradient-boosting cross-entropy (GCE), equation 12.

    GCE(s, l) = logsumexp({s_l} ∪ top-k of {s_i : i ≠ l}) − s_l. The softmax runs over the ground
    truth and its k hardest negatives only. Exactly k negatives count: ties are broken as in
    `jax.lax.top_k`, and the ground truth is never among them. With k ≥ C − 1 it is cross-entropy.

    Its gradient is larger than cross-entropy's for the ground truth and every chosen negative
    (eq. 16), and exactly 0 for every other class. "Larger" refers to signed values: a chosen negative
    is pushed down harder, while the ground truth's gradient, which is negative, moves closer to 0.

    `rest_weight` is not in the paper: it interpolates between cross-entropy and GCE. Negatives that were
    not chosen enter the sum with this weight, as exp(s_i + log w).

    Neither is label smoothing. The target is spread over the same classes as the softmax:
    1 − ε + ε/(k + 1) for the ground truth and ε/(k + 1) for each chosen negative. With `rest_weight`,
    the ε is shared in proportion to the weights: a class of weight v gets ε·v/(k + 1 + w·(C − 1 − k)).

    Args:
      logits: scores s, `[B, C]`.
      labels: ground truth l, int `[B]`, in [0, C).
      k: number of hardest negatives; the paper uses 15.
      rest_weight: w in [0, 1]: 0 is GCE, 1 is cross-entropy bit for bit (with label smoothing, but for
        rounding).
      label_smoothing: ε in [0, 1]; 0 gives equation 12 bit for bit.

    Returns:
      `[B]`, in at least float32.

    Raises:
      TypeError: logits or the weights are not numbers, labels not integers, or k not a whole number.
      ValueError: shapes are others, k < 1, or rest_weight or label_smoothing is outside [0, 1].
    """
    k = arguments.at_least_one("k", k)
    arguments.check_between("rest_weight", rest_weight, 0, 1)
    arguments.check_between("label_smoothing", label_smoothing, 0, 1)
    logits = arguments.floats("logits", logits, "B, C")
    labels = arguments.labels(labels, len(logits))
    classes = logits.shape[-1]
    if k >= classes - 1:
        return cross_entropy(logits, labels, label_smoothing=label_smoothing)
    logits = at_least_float32(logits)
    is_true = is_true_class(labels, classes)
    negatives = jnp.where(is_true, -jnp.inf, jax.lax.stop_gradient(logits))
    _, hardest = jax.lax.top_k(negatives, k)
    # A mask over the classes, not a gather: a gather's gradient is a scatter, which GPUs add up in
    # any order. And NaNs outside the top k still propagate.
    is_hardest = jnp.any(hardest[:, :, None] == jnp.arange(classes), axis=1)
    rest_weight = jnp.asarray(rest_weight, logits.dtype)
    is_chosen = is_true | is_hardest
    true_score = true_score_of(logits, labels)
    loss = log_sum_exp_above(logits + jnp.where(is_chosen, 0, jnp.log(rest_weight)), true_score)
    if not arguments.is_traced(label_smoothing) and label_smoothing == 0:
        return loss
    weighted = jnp.where(is_chosen, 1, rest_weight) * (logits - true_score[:, None])
    # The mean over all classes, as in cross-entropy, of which the weights are a share of 1 at w = 1.
    share = (k + 1 + rest_weight * (classes - 1 - k)) / classes
    return loss - label_smoothing * (jnp.mean(weighted, axis=-1) / share)

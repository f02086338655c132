"""Losses as pure functions of scores and labels, one value per example (paper §3.2).

Scores of a lower precision than float32 are computed in float32. A NaN among an example's scores
makes its loss NaN, and so does a label outside [0, C).
"""

import jax
import jax.numpy as jnp


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy over all classes, equation 9, against labels that may be smoothed.

    Label smoothing (Szegedy et al. 2016) is not the paper's, but what a baseline has today: the target
    is 1 − ε + ε/C for the ground truth and ε/C for every other class.

    Args:
      logits: scores s, `[B, C]`.
      labels: ground truth l, int `[B]`, in [0, C).
      label_smoothing: ε in [0, 1]; with 0 it is equation 9 to the bit.

    Returns:
      `[B]`, −Σ_c q_c log softmax(s)_c for the target q, in at least float32.

    Raises:
      ValueError: label_smoothing is outside [0, 1].
    """
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
    logits = at_least_float32(logits)
    true_score = _true_score(logits, labels)
    loss = _loss_over(logits, true_score)
    if label_smoothing == 0:
        return loss
    # −log p_l − ε · mean over c of (log p_c − log p_l): what all classes share falls out.
    return loss - label_smoothing * jnp.mean(logits - true_score[:, None], axis=-1)


def gradient_boosting_cross_entropy(
    logits: jax.Array, labels: jax.Array, k: int, *, rest_weight: float | jax.Array = 0.0
) -> jax.Array:
    """Gradient-boosting cross-entropy (GCE), equation 12.

    GCE(s, l) = logsumexp({s_l} ∪ top-k of {s_i : i ≠ l}) − s_l. The softmax runs over the ground
    truth and its k hardest negatives only. Exactly k negatives count: ties go by the order of
    `jax.lax.top_k`, and the ground truth is never among them. With k ≥ C − 1 it is cross-entropy.

    Its gradient is larger than cross-entropy's for the ground truth and every chosen negative
    (eq. 16), and exactly 0 for every other class. "Larger" is meant with the sign: a chosen negative
    is pushed down harder, while the ground truth's gradient, which is negative, comes closer to 0.

    `rest_weight` is ours and not the paper's: a bridge from cross-entropy to GCE. The negatives that
    were not chosen count in the sum with this weight, exp(s_i + log w) each.

    Args:
      logits: scores s, `[B, C]`.
      labels: ground truth l, int `[B]`, in [0, C).
      k: number of hardest negatives; the paper uses 15.
      rest_weight: w in [0, 1]: 0 is GCE, 1 is cross-entropy to the bit.

    Returns:
      `[B]`, in at least float32.

    Raises:
      ValueError: k < 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got k={k}")
    classes = logits.shape[-1]
    if k >= classes - 1:
        return cross_entropy(logits, labels)
    logits = at_least_float32(logits)
    is_true = is_true_class(labels, classes)
    negatives = jnp.where(is_true, -jnp.inf, jax.lax.stop_gradient(logits))
    _, hardest = jax.lax.top_k(negatives, k)
    # A mask over the classes, not a gather: a gather's gradient is a scatter, which GPUs add up in
    # any order. And a NaN that top_k has left out is still seen.
    is_hardest = jnp.any(hardest[:, :, None] == jnp.arange(classes), axis=1)
    log_weights = jnp.where(
        is_true | is_hardest, 0, jnp.log(jnp.asarray(rest_weight, logits.dtype))
    )
    return _loss_over(logits + log_weights, _true_score(logits, labels))


def _loss_over(scores: jax.Array, true_score: jax.Array) -> jax.Array:
    """logsumexp(scores) − s_l, with the difference taken first: scores of 1e4 then cost no digits."""
    return jax.nn.logsumexp(scores - true_score[:, None], axis=-1)


def at_least_float32(values: jax.Array) -> jax.Array:
    """`values` in float32, or in float64 where they are."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def is_true_class(labels: jax.Array, classes: int) -> jax.Array:
    """Where each example's ground truth is, `[B, C]`; nowhere, for a label that names no class."""
    return labels[:, None] == jnp.arange(classes)


def _true_score(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """s_l as `[B]`. A label that names no class gives NaN."""
    is_true = is_true_class(labels, logits.shape[-1])
    score = jnp.sum(jnp.where(is_true, logits, 0), axis=-1)
    return jnp.where(jnp.any(is_true, axis=-1), score, jnp.nan)

"""Losses as pure functions of scores and labels, one value per example (paper §3.2).

Scores of a lower precision than float32 are computed in float32. A NaN among an example's scores
makes its loss NaN, and so does a label outside [0, C).
"""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy over all classes, equation 9.

    Args:
      logits: scores s, `[B, C]`.
      labels: ground truth l, int `[B]`, in [0, C).

    Returns:
      `[B]`, −log softmax(s)_l, in at least float32.
    """
    logits = _at_least_float32(logits)
    return _loss_over(logits, _true_score(logits, labels))


def gradient_boosting_cross_entropy(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Gradient-boosting cross-entropy (GCE), equation 12.

    GCE(s, l) = logsumexp({s_l} ∪ top-k of {s_i : i ≠ l}) − s_l. The softmax runs over the ground
    truth and its k hardest negatives only. Exactly k negatives count: ties go by the order of
    `jax.lax.top_k`, and the ground truth is never among them. With k ≥ C − 1 it is cross-entropy.

    Its gradient is larger than cross-entropy's for the ground truth and every chosen negative
    (eq. 16), and exactly 0 for every other class. "Larger" is meant with the sign: a chosen negative
    is pushed down harder, while the ground truth's gradient, which is negative, comes closer to 0.

    Args:
      logits: scores s, `[B, C]`.
      labels: ground truth l, int `[B]`, in [0, C).
      k: number of hardest negatives; the paper uses 15.

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
    logits = _at_least_float32(logits)
    true_score = _true_score(logits, labels)
    is_true = labels[:, None] == jnp.arange(classes)
    negatives = jnp.where(is_true, -jnp.inf, logits)
    hardest, _ = jax.lax.top_k(negatives, k)
    loss = _loss_over(jnp.concatenate([true_score[:, None], hardest], axis=-1), true_score)
    # Where top_k puts a NaN depends on the backend, so it is looked for, not relied upon.
    return jnp.where(jnp.any(jnp.isnan(logits), axis=-1), jnp.nan, loss)


def _loss_over(scores: jax.Array, true_score: jax.Array) -> jax.Array:
    """logsumexp(scores) − s_l, with the difference taken first: scores of 1e4 then cost no digits."""
    return jax.nn.logsumexp(scores - true_score[:, None], axis=-1)


def _at_least_float32(logits: jax.Array) -> jax.Array:
    return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def _true_score(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """s_l as `[B]`. A label that names no class gives NaN instead of another class's score."""
    score = jnp.take_along_axis(
        logits, labels[:, None], axis=-1, mode="fill", fill_value=jnp.nan
    ).squeeze(-1)
    return jnp.where(labels < 0, jnp.nan, score)  # "fill" counts negative indices from the end

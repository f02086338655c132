"""Cross-entropy (paper equation 9), and helpers that all losses share.

Scores of a lower precision than float32 are computed in float32. A NaN among an example's scores
makes its loss NaN, and so does a label outside [0, C).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fgr_jax import arguments


def cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, label_smoothing: ArrayLike = 0.0
) -> jax.Array:
    """Computes cross-entropy over all classes (equation 9), with optional label smoothing.

    Label smoothing (Szegedy et al. 2016) is not in the paper, but common in today's baselines: the
    target is 1 − ε + ε/C for the ground truth and ε/C for every other class.

    Args:
      logits: scores s, `[B, C]`.
      labels: ground truth l, int `[B]`, in [0, C).
      label_smoothing: ε in [0, 1]; 0 gives equation 9 bit for bit.

    Returns:
      `[B]`, −Σ_c q_c log softmax(s)_c for the target q, in at least float32.

    Raises:
      TypeError: logits are not numbers, or labels not integers.
      ValueError: shapes are others, or label_smoothing is outside [0, 1].
    """
    arguments.check_between("label_smoothing", label_smoothing, 0, 1)
    logits = at_least_float32(arguments.floats("logits", logits, "B, C"))
    labels = arguments.labels(labels, len(logits))
    true_score = true_score_of(logits, labels)
    loss = log_sum_exp_above(logits, true_score)
    if not arguments.is_traced(label_smoothing) and label_smoothing == 0:
        return loss
    # −log p_l − ε · mean over c of (log p_c − log p_l), in which the log-normalizer cancels.
    return loss - label_smoothing * jnp.mean(logits - true_score[:, None], axis=-1)


def log_sum_exp_above(scores: jax.Array, true_score: jax.Array) -> jax.Array:
    """Computes logsumexp(s − s_l), `[B]`; subtracting first keeps precision for scores of 1e4."""
    return jax.nn.logsumexp(scores - true_score[:, None], axis=-1)


def true_score_of(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the true scores s_l, `[B]`; NaN for a label outside [0, C)."""
    is_true = is_true_class(labels, logits.shape[-1])
    score = jnp.sum(jnp.where(is_true, logits, 0), axis=-1)
    return jnp.where(jnp.any(is_true, axis=-1), score, jnp.nan)


def at_least_float32(values: jax.Array) -> jax.Array:
    """Casts `values` to float32 if their precision is lower."""
    return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def is_true_class(labels: jax.Array, classes: int) -> jax.Array:
    """Returns the one-hot mask of the labels, bool `[B, C]`; all false for a label outside [0, C)."""
    return labels[:, None] == jnp.arange(classes)

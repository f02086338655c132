"""Pairwise confusion (Dubey et al., "Pairwise Confusion for Fine-Grained Visual …", ECCV 2018)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fgr_jax import arguments
from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Objective


def pairwise_confusion(logits: ArrayLike, labels: ArrayLike, counts: ArrayLike) -> jax.Array:
    """Computes the mean of ‖p_i − p_j‖₂ over pairs of examples of different classes, p = softmax(s).

    The total loss is cross-entropy + λ times this (Dubey et al., ECCV 2018). Example i of the batch's
    first half is paired with example i of the second half; with odd B, the last example is unpaired.
    The mean is over the pairs of different classes, whereas the authors' PyTorch code divides by B: if
    no pair is excluded, λ here corresponds to twice λ there.

    On several devices the halves are those of the global batch, so rows of p are exchanged.

    Args:
      logits: scores s, `[B, C]`.
      labels: int `[B]`.
      counts: bool `[B]`; examples for which it is false are in no pair.

    Returns:
      A scalar in [0, √2], in at least float32; 0 if there is no pair. Where p_i = p_j the gradient is
      0.

    Raises:
      TypeError: logits are not numbers, or labels not integers.
      ValueError: shapes are others.
    """
    logits = arguments.floats("logits", logits, "B, C")
    labels = arguments.labels(labels, len(logits))
    counts = arguments.mask("counts", counts, len(logits))
    half = logits.shape[0] // 2
    first, second = slice(0, half), slice(half, 2 * half)
    p = jax.nn.softmax(at_least_float32(logits), axis=-1)
    is_pair = (labels[first] != labels[second]) & counts[first] & counts[second]
    distances = _norm(p[first] - p[second])
    return jnp.sum(jnp.where(is_pair, distances, 0)) / jnp.maximum(jnp.sum(is_pair), 1)


def objective(weight: float) -> Objective:
    """Returns λ times the mean distance, which is added to cross-entropy; `weight` is λ.

    It is one number for the batch: added to the loss of each example, it enters their mean once.
    """
    return Objective(
        lambda outputs, targets, _: (
            weight * pairwise_confusion(outputs.scores, targets.labels, targets.mask)
        )
    )


def _norm(vectors: jax.Array) -> jax.Array:
    """Computes ‖v‖₂ of each row, `[B]`. At v = 0, where it is not differentiable, the gradient is 0."""
    squared = jnp.sum(vectors * vectors, axis=-1)
    is_zero = squared == 0  # not `> 0`: NaNs must propagate
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squared)))

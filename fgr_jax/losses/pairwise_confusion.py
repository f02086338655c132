"""Pairwise confusion (Dubey et al., "Pairwise Confusion for Fine-Grained Visual …", ECCV 2018)."""

import jax
import jax.numpy as jnp

from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Objective


def pairwise_confusion(logits: jax.Array, labels: jax.Array, counts: jax.Array) -> jax.Array:
    """The mean distance ‖p_i − p_j‖₂ of softmax outputs, of pairs of examples of different classes.

    Pairwise confusion is cross-entropy + λ times this (Dubey et al., ECCV 2018). Example i of the
    batch's first half makes a pair with example i of its second half; an odd one out makes none. The
    mean is over the pairs that remain after those of one class are left out, where the authors'
    PyTorch code divides by B: their weight is half of it here, while no pair is left out.

    On several devices the halves are those of the global batch, and rows of p have to travel.

    Args:
      logits: scores s, `[B, C]`.
      labels: int `[B]`.
      counts: bool `[B]`; an example for which it is false makes no pair.

    Returns:
      A number in [0, √2], in at least float32; 0 where there is no pair. Where p_i = p_j the gradient
      is 0.
    """
    half = logits.shape[0] // 2
    first, second = slice(0, half), slice(half, 2 * half)
    p = jax.nn.softmax(at_least_float32(logits), axis=-1)
    is_pair = (labels[first] != labels[second]) & counts[first] & counts[second]
    distances = _norm(p[first] - p[second])
    return jnp.sum(jnp.where(is_pair, distances, 0)) / jnp.maximum(jnp.sum(is_pair), 1)


def objective(weight: float) -> Objective:
    """Returns λ times the mean distance, which is added to cross-entropy; `weight` is λ.

    It is one number for the batch. Added to the loss of every example, it is in their mean once.
    """
    return Objective(
        lambda outputs, targets, _: (
            weight * pairwise_confusion(outputs.scores, targets.labels, targets.mask)
        )
    )


def _norm(vectors: jax.Array) -> jax.Array:
    """‖v‖₂ of each row, `[B]`. At v = 0, where it has no gradient, the gradient is 0."""
    squared = jnp.sum(vectors * vectors, axis=-1)
    is_zero = squared == 0  # not `> 0`: a NaN has to come through
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squared)))

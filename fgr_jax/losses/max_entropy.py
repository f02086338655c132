"""MaxEnt (Dubey et al., "Maximum-Entropy Fine-Grained Classification", NeurIPS 2018)."""

import jax
import jax.numpy as jnp

from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Objective


def entropy(logits: jax.Array) -> jax.Array:
    """Computes H(softmax(s)) in nats.

    Args:
      logits: scores s, `[B, C]`.

    Returns:
      `[B]`, in at least float32; between 0 and ln C.
    """
    log_p = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def objective(weight: float) -> Objective:
    """Returns −γ·H(softmax(s)), which MaxEnt adds to cross-entropy; `weight` is γ."""
    return Objective(lambda outputs, _targets, _extra: -weight * entropy(outputs.scores))

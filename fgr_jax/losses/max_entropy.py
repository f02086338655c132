"""MaxEnt (Dubey et al., "Maximum-Entropy Fine-Grained Classification", NeurIPS 2018)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fgr_jax import arguments
from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Objective


def entropy(logits: ArrayLike) -> jax.Array:
    """Computes H(softmax(s)) in nats.

    Args:
      logits: scores s, `[B, C]`.

    Returns:
      `[B]`, in at least float32; between 0 and ln C.

    Raises:
      TypeError: logits are not numbers.
      ValueError: logits have another shape.
    """
    logits = at_least_float32(arguments.floats("logits", logits, "B, C"))
    log_p = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def objective(weight: float) -> Objective:
    """Returns −γ·H(softmax(s)), which MaxEnt adds to cross-entropy; `weight` is γ."""
    return Objective(lambda outputs, _targets, _extra: -weight * entropy(outputs.scores))

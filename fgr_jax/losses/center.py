"""Center loss (Wen et al., ECCV 2016)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fgr_jax import arguments
from fgr_jax.losses.ce import at_least_float32, is_true_class
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets

# The authors' rate at which centers move.
_RATE = 0.5
# A look-up must return rows exactly; by default, TPUs multiply in bfloat16 and GPUs in TF32.
_EXACT = jax.lax.Precision.HIGHEST


def center_loss(features: ArrayLike, centers: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Computes ½‖x − c_l‖², half the squared distance to the class center (Wen et al. 2016, eq. 2).

    The total loss is cross-entropy + λ times this.

    Args:
      features: x, `[B, D]`.
      centers: c, `[C, D]`.
      labels: ground truth l, int `[B]`, in [0, C).

    Returns:
      `[B]`, in at least float32.

    Raises:
      TypeError: features or centers are not numbers, or labels not integers.
      ValueError: shapes are others.
    """
    features, centers = _features_and_centers(features, centers)
    labels = arguments.labels(labels, len(features))
    difference = at_least_float32(features) - _own_row(centers, labels)
    return jnp.sum(difference * difference, axis=-1) / 2


def moved_centers(
    features: ArrayLike,
    centers: ArrayLike,
    labels: ArrayLike,
    counts: ArrayLike,
    *,
    rate: ArrayLike,
) -> jax.Array:
    """Computes the centers after a step: c_j − rate · Σ_{l = j}(c_j − x) / (1 + n_j) (eq. 4).

    Args:
      features, centers, labels: see `center_loss`.
      counts: bool `[B]`; examples for which it is false are ignored.
      rate: 0 leaves the centers unchanged; the authors use 0.5.

    Returns:
      `[C, D]`. A class without an example keeps its center bit for bit.

    Raises:
      TypeError, ValueError: as for `center_loss`.
    """
    features, centers = _features_and_centers(features, centers)
    labels = arguments.labels(labels, len(features))
    counts = arguments.mask("counts", counts, len(features))
    difference = _own_row(centers, labels) - at_least_float32(features)
    difference = jnp.where(counts[:, None], difference, 0)
    members = is_true_class(labels, len(centers)) & counts[:, None]
    total = jnp.matmul(members.T.astype(difference.dtype), difference, precision=_EXACT)
    return centers - rate * total / (1 + jnp.sum(members, axis=0)[:, None])


def objective(weight: float) -> Objective:
    """Returns λ times center loss, which is added to cross-entropy; `weight` is λ.

    The centers, float32 `[C, D]`, are state, not parameters: they start at 0 and move after each step.
    """

    def init(outputs: Outputs) -> Extra:
        return {"centers": jnp.zeros((outputs.scores.shape[-1], outputs.features.shape[-1]))}

    def losses(outputs: Outputs, targets: Targets, extra: Extra) -> jax.Array:
        return weight * center_loss(outputs.features, extra["centers"], targets.labels)

    def update(extra: Extra, outputs: Outputs, targets: Targets) -> Extra:
        centers = moved_centers(
            outputs.features, extra["centers"], targets.labels, targets.mask, rate=_RATE
        )
        return {**extra, "centers": centers}

    return Objective(losses, init, update)


def _features_and_centers(features: ArrayLike, centers: ArrayLike) -> tuple[jax.Array, jax.Array]:
    features = arguments.floats("features", features, "B, D")
    centers = arguments.floats("centers", centers, "C, D")
    if features.shape[1] != centers.shape[1]:
        raise ValueError(
            f"features and centers must have the same D, got shapes {features.shape}, {centers.shape}"
        )
    return features, centers


def _own_row(table: jax.Array, labels: jax.Array) -> jax.Array:
    """Looks up row l of `table` `[C, D]` for every label, `[B, D]`.

    A label outside [0, C) gives NaNs. The look-up is a product with one-hot labels, whose gradient is
    not a scatter: GPUs add up a scatter in any order.
    """
    table = at_least_float32(table)
    is_true = is_true_class(labels, len(table))
    rows = jnp.matmul(is_true.astype(table.dtype), table, precision=_EXACT)
    return jnp.where(jnp.any(is_true, axis=-1, keepdims=True), rows, jnp.nan)

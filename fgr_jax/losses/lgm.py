"""Large-margin Gaussian mixture, L-GM (Wan et al., CVPR 2018)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from fgr_jax import arguments
from fgr_jax.losses.ce import at_least_float32, cross_entropy, is_true_class
from fgr_jax.losses.center import center_loss
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets


def gaussian_bias(means: ArrayLike) -> jax.Array:
    """Computes −½‖μ_c‖², `[C]`, which makes the linear score μ_c·x equivalent to −½‖x − μ_c‖².

    −½‖x − μ_c‖² = μ_c·x − ½‖μ_c‖² − ½‖x‖², and the last term is the same for every class.

    Args:
      means: μ, `[C, D]`.
    """
    means = at_least_float32(arguments.floats("means", means, "C, D"))
    return -jnp.sum(means * means, axis=-1) / 2


def large_margin_gaussian_mixture(
    logits: ArrayLike,
    features: ArrayLike,
    means: ArrayLike,
    labels: ArrayLike,
    *,
    margin: ArrayLike,
    likelihood_weight: ArrayLike,
) -> jax.Array:
    """Computes L-GM with identity covariances and equal priors (Wan et al., CVPR 2018).

    With d = ½‖x − μ_l‖², it is cross-entropy with the true score lowered by m·d, plus λ·d.

    Args:
      logits: `[B, C]`, −½‖x − μ_c‖² up to a constant for each example: μ_c·x plus `gaussian_bias`. Their
        x may have suppressed cells.
      features: the x of d, `[B, D]`.
      means: μ, `[C, D]`.
      labels: ground truth l, int `[B]`, in [0, C).
      margin: m ≥ 0; with m = λ = 0 it is cross-entropy bit for bit.
      likelihood_weight: λ ≥ 0.

    Returns:
      `[B]`, in at least float32.

    Raises:
      TypeError: an argument is not a number, or labels are not integers.
      ValueError: shapes are others, or margin or likelihood_weight is negative.
    """
    arguments.check_between("margin", margin, 0, np.inf)
    arguments.check_between("likelihood_weight", likelihood_weight, 0, np.inf)
    logits = at_least_float32(arguments.floats("logits", logits, "B, C"))
    labels = arguments.labels(labels, len(logits))
    distance = center_loss(features, means, labels)
    is_true = is_true_class(labels, logits.shape[-1])
    with_margin = logits - jnp.where(is_true, margin * distance[:, None], 0)
    return cross_entropy(with_margin, labels) + likelihood_weight * distance


def objective(weight: float, margin: float) -> Objective:
    """Returns L-GM with λ = `weight` and m = `margin`, which replaces cross-entropy.

    It requires the Gaussian head, whose weights are the means. The head's bias follows from them and is
    set after every step, so that whatever reads the parameters (evaluation, export, another run) finds
    an ordinary linear classifier. The bias has no gradient and no weight decay of its own.
    """

    def losses(outputs: Outputs, targets: Targets, _: Extra) -> jax.Array:
        assert outputs.class_weights is not None  # of the Gaussian head
        return large_margin_gaussian_mixture(
            outputs.scores,
            outputs.features,
            outputs.class_weights,
            targets.labels,
            margin=margin,
            likelihood_weight=weight,
        )

    return Objective(losses, constrain=with_gaussian_bias)


def with_gaussian_bias(params: Any) -> Any:
    """Sets the bias of the Gaussian head in a network's parameters to that of its means."""
    classifier = params["classifier"]
    bias = gaussian_bias(classifier["kernel"][0, 0].T)
    return {**params, "classifier": {**classifier, "bias": bias}}

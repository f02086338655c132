"""What a run minimizes: cross-entropy, GCE, or one of the losses that GCE is compared with."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from fgr_jax import config as config_lib
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.files.python_files import listed_or_own
from fgr_jax.losses import (
    center,
    cross_entropy,
    gradient_boosting_cross_entropy,
    lgm,
    max_entropy,
    pairwise_confusion,
)
from fgr_jax.losses.objective import Extra, Objective, Outputs, Targets, sum_of

# Losses that are added to cross-entropy where their field of the config's section `loss`, a weight, is
# not 0. They are added in this order.
ADDED: Mapping[str, Callable[[float], Objective]] = {
    "max_entropy": max_entropy.objective,
    "pairwise_confusion": pairwise_confusion.objective,
    "center": center.objective,
}


def build_objective(config: Config, calendar: Calendar, mesh: Mesh) -> Objective:
    """Builds the objective that a config describes.

    Raises:
      UserError: `loss.objective` names none, or does not work.
    """
    loss = config.loss
    if loss.objective:
        return listed_or_own(
            loss.objective, {}, Objective, flag="--config.loss.objective", arguments=[loss]
        )
    if loss.lgm:
        return lgm.objective(loss.lgm, loss.lgm_margin)
    weights = {name: getattr(loss, name) for name in ADDED}
    return sum_of(
        [
            _classification(loss, calendar.gce_start_step, calendar.gce_fade_steps, mesh),
            *(ADDED[name](weight) for name, weight in weights.items() if weight),
        ]
    )


def _classification(
    loss: config_lib.Loss, gce_start_step: int | None, gce_fade_steps: int, mesh: Mesh
) -> Objective:
    """Returns cross-entropy, GCE, or the one after the other.

    Args:
      loss: the config's section.
      gce_start_step: the first step with GCE, cross-entropy before; None: cross-entropy throughout.
      gce_fade_steps: an addition to the paper: the number of steps from there on in which the weight of
        the negatives that GCE leaves out falls from 1 to 0.
      mesh: from `distributed.data_mesh`.
    """

    # Each device sorts its own rows: left to itself, XLA gathers all scores everywhere for top_k.
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec("batch"), PartitionSpec("batch"), PartitionSpec()),
        out_specs=PartitionSpec("batch"),
    )
    def by_row(scores: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        if gce_start_step is None:
            return cross_entropy(scores, labels, label_smoothing=loss.label_smoothing)
        if gce_fade_steps:
            weight = jnp.clip((gce_start_step + gce_fade_steps - step) / gce_fade_steps, 0, 1)
            return gradient_boosting_cross_entropy(scores, labels, loss.k, rest_weight=weight)
        gce = gradient_boosting_cross_entropy(scores, labels, loss.k)
        if gce_start_step == 0:
            return gce
        return jnp.where(step < gce_start_step, cross_entropy(scores, labels), gce)

    def losses(outputs: Outputs, targets: Targets, _: Extra) -> jax.Array:
        return by_row(outputs.scores, targets.labels, targets.step)

    return Objective(losses)

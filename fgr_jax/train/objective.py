"""The objective of a run: cross-entropy, GCE, or one of the losses that GCE is compared with."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from fgr_jax import config as config_lib
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.files.python_files import listed_or_own
from fgr_jax.losses import ADDED, cross_entropy, gradient_boosting_cross_entropy, lgm
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets, sum_of


def build_objective(config: Config, calendar: Calendar, mesh: Mesh) -> Objective:
    """Builds the objective that a config describes.

    Raises:
      UserError: `loss.objective` is not FILE.py:FUNCTION, or it fails.
    """
    loss = config.loss
    if loss.objective:
        return listed_or_own(
            loss.objective, {}, Objective, flag="--config.loss.objective", arguments=[loss]
        )
    if loss.lgm:
        return lgm.objective(loss.lgm, loss.lgm_margin)
    added = [add(weight) for name, add in ADDED.items() if (weight := getattr(loss, name))]
    return sum_of([_classification(loss, calendar, mesh), *added])


def _classification(loss: config_lib.Loss, calendar: Calendar, mesh: Mesh) -> Objective:
    """Returns cross-entropy, GCE, or cross-entropy followed by GCE; the fade is not in the paper."""
    start, fade = calendar.gce_start_step, calendar.gce_fade_steps
    smoothed = functools.partial(cross_entropy, label_smoothing=loss.label_smoothing)
    smoothed_gce = functools.partial(
        gradient_boosting_cross_entropy, k=loss.k, label_smoothing=loss.label_smoothing
    )

    # Each device sorts its own rows: otherwise XLA gathers all scores on every device for top_k.
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec("batch"), PartitionSpec("batch"), PartitionSpec()),
        out_specs=PartitionSpec("batch"),
    )
    def by_row(scores: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        if start is None:
            return smoothed(scores, labels)
        if fade:
            weight = jnp.clip((start + fade - step) / fade, 0, 1)
            return smoothed_gce(scores, labels, rest_weight=weight)
        gce = smoothed_gce(scores, labels)
        if start == 0:
            return gce
        return jnp.where(step < start, smoothed(scores, labels), gce)

    def losses(outputs: Outputs, targets: Targets, _: Extra) -> jax.Array:
        return by_row(outputs.scores, targets.labels, targets.step)

    return Objective(losses)

"""The objective of a run: cross-entropy, GCE, or one of the losses that GCE is compared with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, PartitionSpec

from fgr_jax import config as config_lib
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.files.python_files import listed_or_own
from fgr_jax.losses import ADDED, cross_entropy, gradient_boosting_cross_entropy, imbalance, lgm
from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets, sum_of


def build_objective(
    config: Config,
    calendar: Calendar,
    mesh: Mesh,
    class_counts: npt.NDArray[np.integer] | None = None,
) -> Objective:
    """Builds the objective that a config describes.

    Args:
      config: the run.
      calendar: when GCE replaces cross-entropy.
      mesh: the devices.
      class_counts: the number of training images of each class, `[C]`; None if the config does not need
        it.

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
    return sum_of([_classification(loss, calendar, mesh, class_counts), *added])


def needs_class_counts(loss: config_lib.Loss) -> bool:
    """Returns whether an objective depends on the number of training images of each class."""
    return bool(loss.logit_adjustment or loss.class_weights)


def _classification(
    loss: config_lib.Loss,
    calendar: Calendar,
    mesh: Mesh,
    class_counts: npt.NDArray[np.integer] | None,
) -> Objective:
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

    if not needs_class_counts(loss):
        return Objective(losses)
    assert class_counts is not None
    adjustments = imbalance.logit_adjustments(class_counts, loss.logit_adjustment)
    weights = imbalance.class_weights(class_counts, loss.class_weights)

    def for_rare_classes(outputs: Outputs, targets: Targets, extra: Extra) -> jax.Array:
        adjusted = outputs._replace(scores=at_least_float32(outputs.scores) + adjustments)
        return losses(adjusted, targets, extra) * jnp.asarray(weights)[targets.labels]

    return Objective(for_rare_classes)

"""The interface between heads and losses: outputs, targets and objectives.

Your own objective is a function of outputs and targets:

    def focal(loss: fgr_jax.config.Loss) -> Objective:
        def losses(outputs: Outputs, targets: Targets, extra: Extra) -> jax.Array:
            log_p = -cross_entropy(outputs.scores, targets.labels)
            return -((1 - jnp.exp(log_p)) ** 2) * log_p

        return Objective(losses)
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

# An objective's own state by name, such as the centers of center loss; most have none.
Extra = dict[str, Any]


class Outputs(NamedTuple):
    """The outputs of a head for a batch."""

    # Scores, `[B, C]`: the average of the maps, plus the offset, where there are maps.
    scores: jax.Array
    features: jax.Array  # the features behind the scores, averaged over space, `[B, D]`
    # Class activation maps, `[B, h, w, C]`; None for a head without maps, which cannot use the block.
    maps: jax.Array | None = None
    # A term, `[C]`, added to the average of the maps and not affected by the block; None: nothing.
    offset: jax.Array | None = None
    # The rows of a linear classifier, `[C, D]`, where the scores are linear in the features.
    class_weights: jax.Array | None = None
    # More arrays `[B, ...]` by name, for the objective of a head that has one of its own.
    branches: Mapping[str, jax.Array] | None = None


class Targets(NamedTuple):
    """What an objective may use besides the outputs."""

    labels: jax.Array  # int `[B]`, in [0, C)
    mask: jax.Array  # bool `[B]`; the losses of examples for which it is false are not used
    step: jax.Array  # number of steps taken before this one, int32 scalar


class Objective(NamedTuple):
    """A loss to train with, as functions.

    Attributes:
      losses: computes a loss for each example, `[B]`, or one number for the batch, which then counts as
        the loss of each example. The mean over the mask is minimized. `extra` has no gradient.
      init: returns the state before the first step; may use only shapes and dtypes of the outputs.
      update: returns the state after a step, given the outputs of the step's forward pass.
      constrain: is applied to the parameters after every update, to enforce exact constraints.
    """

    losses: Callable[[Outputs, Targets, Extra], jax.Array]
    init: Callable[[Outputs], Extra] = lambda _: {}
    update: Callable[[Extra, Outputs, Targets], Extra] = lambda extra, _outputs, _targets: extra
    constrain: Callable[[Any], Any] = lambda params: params


def of_head(head: Any, objective: Objective) -> Objective:
    """Returns what a head is trained with: its own form of the run's objective, if it defines one.

    A head with several scores or a loss of its own has a method `objective(base)`, which wraps the run's
    objective `base`. The head is a Flax module.
    """
    own: Callable[[Objective], Objective] | None = getattr(head, "objective", None)
    return objective if own is None else own(objective)


def sum_of(objectives: list[Objective]) -> Objective:
    """Returns an objective that sums the losses of several objectives, in order.

    The states of the objectives share one dict and must not use the same names.
    """

    def losses(outputs: Outputs, targets: Targets, extra: Extra) -> jax.Array:
        total = objectives[0].losses(outputs, targets, extra)
        for objective in objectives[1:]:
            total += objective.losses(outputs, targets, extra)
        return total

    def init(outputs: Outputs) -> Extra:
        return {name: value for each in objectives for name, value in each.init(outputs).items()}

    def update(extra: Extra, outputs: Outputs, targets: Targets) -> Extra:
        for objective in objectives:
            extra = objective.update(extra, outputs, targets)
        return extra

    def constrain(params: Any) -> Any:
        for objective in objectives:
            params = objective.constrain(params)
        return params

    return Objective(losses, init, update, constrain)

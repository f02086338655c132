"""Momentum SGD and its learning-rate schedule, in PyTorch's form."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import optax

from fgr_jax import durations
from fgr_jax.config import Config

# The batch size that `learning_rate` refers to; the paper does not state its own.
_REFERENCE_BATCH_SIZE = 16


def learning_rate_schedule(config: Config, *, epoch: Fraction, total_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step, warm-up included.

    "step" multiplies it by `decay_factor` every `decay_every`, as `torch.optim.StepLR` does; "cosine"
    lets it fall from its peak after the warm-up to 0 at `total_steps`. `epoch` is in steps.
    """
    optimizer = config.optimizer
    peak = optimizer.learning_rate
    if optimizer.scale_with_batch:
        peak *= config.batch_size / _REFERENCE_BATCH_SIZE
    warmup_steps = durations.whole_steps(optimizer.warmup, epoch)
    if optimizer.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=peak,
            warmup_steps=warmup_steps,
            decay_steps=max(total_steps, warmup_steps + 1),
        )
    decay_steps = durations.whole_steps(optimizer.decay_every, epoch)

    def staircase(step: jax.Array) -> jax.Array:
        # Not `optax.exponential_decay`, which computes in float32 under x64 as well.
        return peak * jnp.power(optimizer.decay_factor, step // decay_steps)

    if warmup_steps == 0:
        return staircase
    ramp = optax.linear_schedule(0.0, 1.0, warmup_steps)
    return lambda step: ramp(step) * staircase(step)


def momentum_sgd(
    schedule: optax.Schedule, *, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    """Returns `torch.optim.SGD`: v ← momentum·v + (g + weight_decay·w), w ← w − lr·v."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum=momentum)
    )

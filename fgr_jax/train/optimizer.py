"""The optimizer and its learning-rate schedule, in PyTorch's form."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fgr_jax import durations
from fgr_jax.config import Config
from fgr_jax.models.network import HEAD, Network, depths_of_params

# The batch size that `learning_rate` refers to; the paper does not state its own.
_REFERENCE_BATCH_SIZE = 16
# Parameters with several axes that have no weight decay where biases have none; as in timm.
_TOKENS = ("pos_embed", "cls_token", "reg_token")


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


def build_optimizer(
    config: Config, network: Network, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Builds the optimizer that a config describes.

    The gradient is clipped first. The factors on the learning rate are applied to the whole update at
    the end, the weight decay included, as those of PyTorch's parameter groups are.

    Args:
      config: the run.
      network: its network, whose stages `layer_decay` counts.
      schedule: the learning rate as a function of the step.
    """
    section = config.optimizer
    mask = None if section.decay_norms_and_biases else _is_decayed
    transforms = []
    if section.clip_norm:
        transforms.append(optax.clip_by_global_norm(section.clip_norm))
    if section.name == "adamw":
        adamw = optax.adamw(schedule, weight_decay=section.weight_decay, mask=mask)
        transforms.append(adamw)
    else:
        sgd = momentum_sgd(
            schedule,
            momentum=section.momentum,
            weight_decay=section.weight_decay,
            nesterov=section.nesterov,
            mask=mask,
        )
        transforms.append(sgd)
    if section.head_factor != 1 or section.layer_decay != 1:
        depths = {} if section.layer_decay == 1 else depths_of_params(network, config.data.crop)

        def factor(path: str) -> float:
            of_head = section.head_factor if path.startswith(f"{HEAD}/") else 1
            return of_head * section.layer_decay ** depths.get(path, 0)

        transforms.append(_scaled(factor))
    # A chain of one would change the tree of the state, and with it that of checkpoints.
    return transforms[0] if len(transforms) == 1 else optax.chain(*transforms)


def momentum_sgd(
    schedule: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
    mask: Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """Returns `torch.optim.SGD`: v ← momentum·v + (g + weight_decay·w), w ← w − lr·v.

    With `nesterov`, w ← w − lr·(g + weight_decay·w + momentum·v). `mask` maps the parameters to a tree
    of booleans, true where there is weight decay; None: everywhere.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay, mask),
        optax.sgd(schedule, momentum=momentum, nesterov=nesterov),
    )


def _is_decayed(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf.ndim > 1 and path[-1].key not in _TOKENS, params
    )


def _scaled(factor: Callable[[str], float]) -> optax.GradientTransformation:
    """Multiplies each update by a function of its path, such as "classifier/bias"."""

    def update(updates: Any, _: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * factor("/".join(key.key for key in path)), updates
        )

    return optax.stateless(update)

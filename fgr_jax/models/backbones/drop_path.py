"""Stochastic depth (Huang et al. 2016): residual branches are left out at random, as in timm."""

import flax.linen as nn
import jax
import jax.numpy as jnp

STREAM = "drop_path"  # Flax's name of the random numbers


def drop_path(block: nn.Module, y: jax.Array, rate: float) -> jax.Array:
    """Sets the branch `y` `[B, ...]` of a block to 0 with probability `rate`, for each example.

    What is kept is divided by 1 − rate, so that its expectation is `y`. A rate of 0 draws nothing.
    """
    if rate == 0:
        return y
    shape = (y.shape[0],) + (1,) * (y.ndim - 1)
    is_kept = jax.random.bernoulli(block.make_rng(STREAM), 1 - rate, shape)
    return jnp.where(is_kept, y / (1 - rate), 0)

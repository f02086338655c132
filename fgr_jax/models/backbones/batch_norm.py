"""BatchNorm with the statistics of the global batch, or of groups of its images."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def batch_norm(group: int, **attributes: Any) -> nn.Module:
    """Returns Flax's BatchNorm if `group` is 0, and otherwise one with groups of so many images."""
    return GroupedBatchNorm(group, **attributes) if group else nn.BatchNorm(**attributes)


class GroupedBatchNorm(nn.Module):
    """BatchNorm whose statistics are those of groups of consecutive images.

    Devices whose share of the batch is a multiple of the group need no exchange to normalize it. The
    running statistics move by the mean over all groups of their means and (biased) variances. The
    variables have the names and shapes of Flax's BatchNorm, which computes the same for one group.
    """

    group: int
    use_running_average: bool
    momentum: float
    epsilon: float
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes `[B, ..., C]`; in training, `group` divides B."""
        channels = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, channels, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, self.param_dtype)
        if self.use_running_average:
            y = x
            mean, var = running_mean.value, running_var.value
        else:
            y = x.reshape(-1, self.group, *x.shape[1:])
            exact = y.astype(jnp.promote_types(y.dtype, jnp.float32))
            axes = tuple(range(1, y.ndim - 1))
            mean = jnp.mean(exact, axes, keepdims=True)
            var = jnp.maximum(jnp.mean(exact * exact, axes, keepdims=True) - mean * mean, 0)
            for running, found in ((running_mean, mean), (running_var, var)):
                of_groups = jnp.mean(found.reshape(-1, *channels), axis=0)
                running.value = self.momentum * running.value + (1 - self.momentum) * of_groups
        y = (y - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias
        return y.reshape(x.shape).astype(self.dtype)

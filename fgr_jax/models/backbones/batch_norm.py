"""BatchNorm with the statistics of the global batch, or of groups of its images."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BatchNorm(nn.Module):
    """Normalizes each channel by the mean and the variance of the batch, or of groups of its images.

    With groups, devices whose share of the batch is a multiple of the group need no exchange. The
    running statistics move by the mean over all groups of their means and (biased) variances. The
    variables have the names and shapes of `flax.linen.BatchNorm`, which computes the same for one group.

    Attributes:
      group: the number of consecutive images whose statistics are used; 0: all.
      use_running_average: whether the running statistics are used in place of the batch's.
      momentum: what is left of the running statistics after a step.
      epsilon: added to the variance.
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
            y = _scaled(x, running_mean.value, running_var.value, scale, bias, self.epsilon)
            return y.astype(self.dtype)
        groups = x.reshape(-1, self.group or x.shape[0], *x.shape[1:])
        y, mean, var = _normalized(groups, scale, bias, self.epsilon)
        if not self.is_initializing():
            for running, of_groups in ((running_mean, mean), (running_var, var)):
                found = of_groups.reshape(-1, *channels).mean(axis=0)
                running.value = self.momentum * running.value + (1 - self.momentum) * found
        return y.reshape(x.shape).astype(self.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalized(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each channel of each group, in at least float32.

    The derivative is written out, since XLA would write more arrays to memory for the derivatives of the
    single operations. It is defined for reverse mode only.

    Args:
      x: `[G, g, ..., C]`.
      scale: `[C]`.
      bias: `[C]`, of the dtype of `scale`.
      epsilon: added to the variance.

    Returns:
      y of the shape of `x`, and the mean and the biased variance of each group, `[G, 1, ..., C]`, which
      pass no gradient on.
    """
    exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    axes = _axes(x)
    mean = exact.mean(axes, keepdims=True)
    var = jnp.maximum((exact * exact).mean(axes, keepdims=True) - mean * mean, 0)
    return _scaled(x, mean, var, scale, bias, epsilon), mean, var


@functools.partial(jax.jit, static_argnums=5)
def _scaled(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> jax.Array:
    """Is traced once for all layers of one shape, which shortens the start of a command."""
    return (x - mean) * (jax.lax.rsqrt(var + epsilon) * scale) + bias


_Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], _Saved]:
    y, mean, var = _normalized(x, scale, bias, epsilon)
    return (y, mean, var), (x, mean, jax.lax.rsqrt(var + epsilon), scale)


def _backward(
    epsilon: float, saved: _Saved, gradients: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    del epsilon
    x, mean, factor, scale = saved
    gradient, *_ = gradients
    axes = _axes(x)
    # Sums of products of arrays: XLA computes them without writing the products to memory.
    of_bias = gradient.sum(axes, keepdims=True)
    of_scale = ((gradient * x).sum(axes, keepdims=True) - mean * of_bias) * factor
    count = x.size // of_bias.size
    of_unit = gradient - of_bias / count - (x - mean) * (factor * of_scale / count)
    of_x = of_unit * (factor * scale)
    of_scale, of_bias = (
        each.reshape(-1, x.shape[-1]).sum(axis=0).astype(scale.dtype)
        for each in (of_scale, of_bias)
    )
    return of_x.astype(x.dtype), of_scale, of_bias


_normalized.defvjp(_forward, _backward)


def _axes(x: jax.Array) -> tuple[int, ...]:
    """Returns the axes of the images of a group and of their cells."""
    return tuple(range(1, x.ndim - 1))

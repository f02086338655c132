"""Layers and functions that several heads are built of."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.losses.ce import at_least_float32
from fgr_jax.models.backbones.batch_norm import BatchNorm
from fgr_jax.models.backbones.convolution import Convolution

# torch.nn.Linear's default, U(−1/√fan_in, 1/√fan_in).
LINEAR_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
# Matrix functions lose too much in the bfloat16 of TPUs and the TF32 of GPUs.
EXACT = jax.lax.Precision.HIGHEST
STREAM = "head"  # Flax's name of the random numbers of a head's forward pass in training


def linear(features: int, *, param_dtype: Any, name: str) -> nn.Dense:
    """Returns a linear layer with torch.nn.Linear's initialization; it computes in its input's dtype."""
    return nn.Dense(features, kernel_init=LINEAR_INIT, param_dtype=param_dtype, name=name)


class Reduction(nn.Module):
    """A 1×1 convolution to fewer channels, BatchNorm and ReLU.

    Attributes:
      channels: the number of channels to reduce to.
      norm_group: as for `BatchNorm`.
      dtype: dtype of the computation.
    """

    channels: int
    norm_group: int = 0
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> jax.Array:
        """Maps `[B, h, w, D]` to `[B, h, w, channels]`."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = Convolution(self.channels, (1, 1), use_bias=False, **dtypes, name="conv")(features)
        return nn.relu(normalized(self.norm_group, x, train=train, name="norm", **dtypes))


def normalized(
    norm_group: int, x: jax.Array, *, train: bool, name: str, dtype: Any, param_dtype: Any
) -> Any:
    """Applies BatchNorm with PyTorch's momentum and ε to `[B, ..., C]`."""
    attributes = {"momentum": 0.9, "epsilon": 1e-5, "dtype": dtype, "param_dtype": param_dtype}
    norm: Any = BatchNorm(norm_group, use_running_average=not train, **attributes, name=name)
    return norm(x)


def cells(features: jax.Array) -> jax.Array:
    """Returns `[B, h, w, D]` as `[B, N, D]`, N = h·w, in at least float32."""
    batch, rows, columns, channels = features.shape
    return at_least_float32(features).reshape(batch, rows * columns, channels)


def unit_norm(vectors: jax.Array) -> jax.Array:
    """Divides each of the vectors `[..., D]` by its norm; 0 stays 0, where the gradient is 0 too."""
    squared = jnp.sum(vectors * vectors, axis=-1, keepdims=True)
    is_zero = squared == 0  # not `> 0`: NaNs must propagate
    return jnp.where(is_zero, 0, vectors * jax.lax.rsqrt(jnp.where(is_zero, 1, squared)))


def interpolation(places: jax.Array, count: int) -> jax.Array:
    """Returns the weights of `count` points 0, 1, … in linear interpolation at places `[..., S]`.

    Beyond the outer points, the weights fall to 0 within a distance of 1.

    Returns:
      `[..., S, count]`.
    """
    return jnp.maximum(1 - jnp.abs(places[..., None] - jnp.arange(count)), 0)

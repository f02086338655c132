"""ConvNeXt backbones (Liu et al., A ConvNet for the 2020s, 2022), with timm's names of modules."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.backbones.drop_path import drop_path
from fgr_jax.models.backbones.interface import Backbone, Hub, licensed, refuse_last_stride
from fgr_jax.models.backbones.products import Dense
from fgr_jax.models.weights.table import (
    CLASSIFIER,
    CONVOLUTION,
    DENSE,
    NORM,
    PARAMETER,
    Row,
    Table,
)

_EPSILON = 1e-6
_KERNEL_INIT = nn.initializers.normal(0.02)
_LAYER_SCALE_INIT = 1e-6

# Blocks and channels of the four stages.
SIZES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}


class Block(nn.Module):
    """A depthwise 7×7 convolution and a perceptron of two layers, around which there is a shortcut."""

    conv: Callable[..., Any]
    norm: Callable[..., Any]
    dense: Callable[..., Any]
    param_dtype: Any
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        y = self.conv(channels, (7, 7), padding=3, groups=channels, name="conv_dw")(x)
        y = self.norm(name="norm")(y)
        y = self.dense(4 * channels, name="mlp_fc1")(y)
        y = self.dense(channels, name="mlp_fc2")(nn.gelu(y, approximate=False))
        initial = nn.initializers.constant(_LAYER_SCALE_INIT)
        gamma = self.param("gamma", initial, (channels,), self.param_dtype)
        return x + drop_path(self, gamma.astype(y.dtype) * y, self.drop_rate)


class PooledNorm(nn.Module):
    """LayerNorm of the features' average over space, applied to every cell.

    ConvNeXt pools before its last LayerNorm, and maps need the features before they are pooled. With the
    mean and the variance of the pooled features, the normalization is the same affine function for all
    cells of an image, so the average of the normalized features is the normalized average.
    """

    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes features `[B, h, w, D]`."""
        pooled = x.astype(jnp.promote_types(self.dtype, jnp.float32)).mean((1, 2), keepdims=True)
        mean = pooled.mean(-1, keepdims=True)
        variance = jnp.square(pooled - mean).mean(-1, keepdims=True)
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, self.param_dtype)
        normalized = (x - mean) * jax.lax.rsqrt(variance + _EPSILON) * scale + bias
        return normalized.astype(self.dtype)


class ConvNeXt(Backbone):
    """A backbone up to and including the last LayerNorm.

    Attributes:
      depths: the number of blocks in each of the four stages.
      channels: likewise the number of channels.
    """

    depths: tuple[int, ...]
    channels: tuple[int, ...]

    stages = ("stem", "stages_0", "stages_1", "stages_2", "stages_3", "last_norm")
    stride = 32
    origin = 15.5
    table: ClassVar[Table] = (
        Row(r"backbone/stem_0", r"stem.0", CONVOLUTION),
        Row(r"backbone/stem_1", r"stem.1", NORM),
        Row(r"backbone/stages_(\d)_downsample_0", r"stages.\1.downsample.0", NORM),
        Row(r"backbone/stages_(\d)_downsample_1", r"stages.\1.downsample.1", CONVOLUTION),
        Row(r"backbone/stages_(\d)_blocks_(\d+)/(conv_dw)", r"stages.\1.blocks.\2.\3", CONVOLUTION),
        Row(r"backbone/stages_(\d)_blocks_(\d+)/(norm)", r"stages.\1.blocks.\2.\3", NORM),
        Row(r"backbone/stages_(\d)_blocks_(\d+)/mlp_(\w+)", r"stages.\1.blocks.\2.mlp.\3", DENSE),
        Row(r"backbone/stages_(\d)_blocks_(\d+)/(gamma)", r"stages.\1.blocks.\2.\3", PARAMETER),
        Row(r"backbone/head_norm", r"head.norm", NORM),
        Row(r"classifier", r"head.fc", CLASSIFIER),
    )

    def stage(self, name: str, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes the stem, one of the four stages of blocks, or the last LayerNorm.

        Stem and stages divide the image into squares without overlap; rows and columns beyond the last
        whole square are left out.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Callable[..., Any] = functools.partial(
            Convolution, kernel_init=_KERNEL_INIT, **dtypes
        )
        dense: Callable[..., Any] = functools.partial(Dense, kernel_init=_KERNEL_INIT, **dtypes)
        norm: Callable[..., Any] = functools.partial(
            nn.LayerNorm, epsilon=_EPSILON, use_fast_variance=False, **dtypes
        )
        if name == "stem":
            return norm(name="stem_1")(conv(self.channels[0], (4, 4), 4, name="stem_0")(x))
        if name == "last_norm":
            return PooledNorm(name="head_norm", **dtypes)(x)
        index = int(name.removeprefix("stages_"))
        if index > 0:
            x = norm(name=f"{name}_downsample_0")(x)
            x = conv(self.channels[index], (2, 2), 2, name=f"{name}_downsample_1")(x)
        for number in range(self.depths[index]):
            rate = self.drop_rate(
                sum(self.depths[:index]) + number, sum(self.depths) - 1, train=train
            )
            block = functools.partial(Block, conv, norm, dense, self.param_dtype, rate)
            x = block(name=f"{name}_blocks_{number}")(x)
        return x


def from_config(network: Network, size: str) -> ConvNeXt:
    """Builds the backbone of a size of `SIZES` for the config's section `network`.

    Raises:
      UserError: `last_stride` is not that of the architecture.
    """
    refuse_last_stride(network)
    depths, channels = SIZES[size]
    return ConvNeXt(
        depths=depths,
        channels=tuple(round(count * network.width) for count in channels),
        dtype=jnp.dtype(network.compute_dtype),
    )


ARCHITECTURES: Mapping[str, Callable[[Network], Backbone]] = {
    f"convnext_{size}": functools.partial(from_config, size=size) for size in SIZES
}

# Those of convnext_*.clip_* are left out: they take images with another mean and deviation.
_TAGS = ("fb_in1k", "fb_in22k", "fb_in22k_ft_in1k", "fb_in22k_ft_in1k_384")
_IN12K_TAGS = ("in12k", "in12k_ft_in1k", "in12k_ft_in1k_384")
HUB: Hub = licensed(
    "Apache-2.0",
    {
        "convnext_tiny": (*_TAGS, *_IN12K_TAGS),
        "convnext_small": (*_TAGS, *_IN12K_TAGS),
        "convnext_base": _TAGS,
        "convnext_large": _TAGS,
    },
)

"""EfficientNet and EfficientNet-Lite backbones (Tan and Le 2019), with timm's names of modules.

Those whose names begin with `tf_` compute as TensorFlow does: padding is SAME, which depends on the
size of the image, and BatchNorm's epsilon is 1e-3. EfficientNet-Lite has ReLU6, no
squeeze-and-excitation, and the same stem and head in all sizes.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.errors import UserError
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.backbones.interface import Backbone, Channels
from fgr_jax.models.weights.table import CLASSIFIER, CONVOLUTION, NORM, Row, Table


class _Stage(NamedTuple):
    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)
_STEM_CHANNELS, _HEAD_CHANNELS = 32, 1280
# Factors on the numbers of channels and of blocks.
SIZES: tuple[tuple[float, float], ...] = (
    (1.0, 1.0),
    (1.0, 1.1),
    (1.1, 1.2),
    (1.2, 1.4),
    (1.4, 1.8),
)
_SQUEEZE = 0.25  # of the number of channels that enter a block

# The initializer of `Convolution` counts all output channels; a depthwise kernel reaches one.
_DEPTHWISE_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

_HALF: Channels = (0.5, 0.5, 0.5)


def _convolution(
    features: int, side: int, stride: int = 1, *, pads_as_tensorflow: bool, **attributes: Any
) -> Convolution:
    """Returns a convolution without a bias, unless asked for one, whose kernel is a square."""
    padding = None if pads_as_tensorflow else side // 2
    attributes = {"use_bias": False} | attributes
    return Convolution(features, (side, side), stride, padding, **attributes)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a factor in (0, 1) that depends on all channels' means over space."""

    squeezed: int
    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.squeezed, 1, name="conv_reduce", use_bias=True)(
            x.mean((1, 2), keepdims=True)
        )
        y = self.conv(x.shape[-1], 1, name="conv_expand", use_bias=True)(nn.silu(y))
        return x * nn.sigmoid(y)


class Block(nn.Module):
    """An inverted residual block: expansion, depthwise convolution, projection."""

    stage: _Stage
    stride: int
    channels: int
    is_lite: bool
    conv: Callable[..., Any]
    norm: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        activation = nn.relu6 if self.is_lite else nn.silu
        # The block without an expansion has timm's names of a depthwise separable convolution.
        expands = self.stage.expansion > 1
        projection, norms = ("conv_pwl", ("bn2", "bn3")) if expands else ("conv_pw", ("bn1", "bn2"))
        y = x
        if expands:
            y = self.conv(x.shape[-1] * self.stage.expansion, 1, name="conv_pw")(y)
            y = activation(self.norm(name="bn1")(y))
        expanded = y.shape[-1]
        y = self.conv(
            expanded,
            self.stage.kernel_size,
            self.stride,
            name="conv_dw",
            groups=expanded,
            kernel_init=_DEPTHWISE_INIT,
        )(y)
        y = activation(self.norm(name=norms[0])(y))
        if not self.is_lite:
            y = SqueezeExcitation(round(x.shape[-1] * _SQUEEZE), self.conv, name="se")(y)
        y = self.norm(name=norms[1])(self.conv(self.channels, 1, name=projection)(y))
        return y + x if self.stride == 1 and y.shape == x.shape else y


class EfficientNet(Backbone):
    """A backbone up to and including the 1×1 convolution before pooling.

    Attributes:
      width: factor on the numbers of channels, which are rounded to multiples of 8.
      depth: factor on the numbers of blocks, which are rounded up.
      is_lite: whether this is EfficientNet-Lite.
      is_of_tensorflow: whether padding and epsilon are TensorFlow's instead of PyTorch's.
    """

    width: float
    depth: float
    is_lite: bool
    is_of_tensorflow: bool

    stages = ("stem", *(f"blocks_{index}" for index in range(len(_STAGES))), "head")
    stride = 32
    table: ClassVar[Table] = (
        Row(r"backbone/(conv_stem|conv_head)", r"\1", CONVOLUTION),
        Row(r"backbone/(bn\d)", r"\1", NORM),
        Row(r"backbone/blocks_(\d)_(\d+)/(conv_\w+)", r"blocks.\1.\2.\3", CONVOLUTION),
        Row(r"backbone/blocks_(\d)_(\d+)/(bn\d)", r"blocks.\1.\2.\3", NORM),
        Row(r"backbone/blocks_(\d)_(\d+)/se/(conv_\w+)", r"blocks.\1.\2.se.\3", CONVOLUTION),
        Row(r"classifier", r"classifier", CLASSIFIER),
    )

    def stage(self, name: str, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes the stem, one of the seven stages of blocks, or the head."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Callable[..., Any] = functools.partial(
            _convolution, pads_as_tensorflow=self.is_of_tensorflow, **dtypes
        )
        # timm's momentum is PyTorch's, 0.1 there, also where epsilon is TensorFlow's.
        norm: Callable[..., Any] = functools.partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-3 if self.is_of_tensorflow else 1e-5,
            **dtypes,
        )
        activation = nn.relu6 if self.is_lite else nn.silu
        if name == "stem":
            channels = _STEM_CHANNELS if self.is_lite else self._scaled(_STEM_CHANNELS)
            x = conv(channels, 3, 2, name="conv_stem")(x.astype(self.dtype))
            return activation(norm(name="bn1")(x))
        if name == "head":
            channels = _HEAD_CHANNELS if self.is_lite else self._scaled(_HEAD_CHANNELS)
            return activation(norm(name="bn2")(conv(channels, 1, name="conv_head")(x)))
        index = int(name.removeprefix("blocks_"))
        stage = _STAGES[index]
        is_fixed = self.is_lite and index in (0, len(_STAGES) - 1)
        channels = self._scaled(stage.channels)
        for number in range(stage.blocks if is_fixed else math.ceil(stage.blocks * self.depth)):
            stride = stage.stride if number == 0 else 1
            block = Block(
                stage, stride, channels, self.is_lite, conv, norm, name=f"{name}_{number}"
            )
            x = block(x)
        return x

    def _scaled(self, channels: int) -> int:
        """Returns a number of channels times the width, as a multiple of 8 and not below 90% of it."""
        scaled = channels * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * scaled else rounded + 8


def from_config(
    network: Network, size: int, *, is_lite: bool, is_of_tensorflow: bool
) -> EfficientNet:
    """Builds the backbone of a size for the config's section `network`.

    Raises:
      UserError: `last_stride` is not that of the architecture.
    """
    if network.last_stride != 2:
        raise UserError(
            f"--config.network.last_stride={network.last_stride} is for ResNets: leave it out with "
            f"--config.network.backbone={network.backbone}"
        )
    width, depth = SIZES[size]
    normalization = {"mean": _HALF, "std": _HALF} if is_lite and is_of_tensorflow else {}
    return EfficientNet(
        width=width * network.width,
        depth=depth,
        is_lite=is_lite,
        is_of_tensorflow=is_of_tensorflow,
        dtype=jnp.dtype(network.compute_dtype),
        **normalization,
    )


ARCHITECTURES: Mapping[str, Callable[[Network], Backbone]] = {
    f"{prefix}{size}": functools.partial(
        from_config, size=size, is_lite="lite" in prefix, is_of_tensorflow=prefix.startswith("tf_")
    )
    for prefix in ("efficientnet_lite", "tf_efficientnet_lite", "tf_efficientnet_b")
    for size in range(len(SIZES))
}

# Those of tf_efficientnet_b*.ap_in1k are left out: they take images with another mean and deviation.
HUB: Mapping[str, tuple[str, ...]] = {
    "efficientnet_lite0": ("ra_in1k",),
    **{f"tf_efficientnet_lite{size}": ("in1k",) for size in range(len(SIZES))},
    **{
        f"tf_efficientnet_b{size}": ("in1k", "aa_in1k", "ns_jft_in1k") for size in range(len(SIZES))
    },
}

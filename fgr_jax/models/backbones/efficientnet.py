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
from fgr_jax.models.backbones.batch_norm import BatchNorm
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.backbones.drop_path import drop_path
from fgr_jax.models.backbones.interface import Backbone, Hub, licensed, refuse_last_stride
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
SIZES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8))
_SQUEEZE = 0.25  # of the number of channels that enter a block

# The initializer of `Convolution` counts all output channels; a depthwise kernel reaches one.
_DEPTHWISE_INIT = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def _convolution(
    features: int, side: int, stride: int = 1, *, pads_as_tensorflow: bool, **attributes: Any
) -> Convolution:
    """Returns a convolution without a bias, unless asked for one, whose kernel is a square."""
    padding = None if pads_as_tensorflow else side // 2
    return Convolution(features, (side, side), stride, padding, **{"use_bias": False} | attributes)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a factor in (0, 1) that depends on all channels' means over space."""

    squeezed: int
    conv: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.mean((1, 2), keepdims=True)
        y = self.conv(self.squeezed, 1, name="conv_reduce", use_bias=True)(y)
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
    drop_rate: float = 0.0

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
        expanded, side = y.shape[-1], self.stage.kernel_size
        depthwise = {"groups": expanded, "kernel_init": _DEPTHWISE_INIT, "name": "conv_dw"}
        y = self.conv(expanded, side, self.stride, **depthwise)(y)
        y = activation(self.norm(name=norms[0])(y))
        if not self.is_lite:
            y = SqueezeExcitation(round(x.shape[-1] * _SQUEEZE), self.conv, name="se")(y)
        y = self.norm(name=norms[1])(self.conv(self.channels, 1, name=projection)(y))
        if self.stride > 1 or y.shape != x.shape:
            return y
        return drop_path(self, y, self.drop_rate) + x


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

    @property
    def origin(self) -> float:
        """The row and column of the pixel that the first cell is centered at.

        With SAME padding, this holds for numbers of rows and columns that the stride divides.
        """
        return self.stride - 1.0 if self.is_of_tensorflow else 0.0

    def stage(self, name: str, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes the stem, one of the seven stages of blocks, or the head."""
        tf, dtypes = self.is_of_tensorflow, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Callable[..., Any] = functools.partial(_convolution, pads_as_tensorflow=tf, **dtypes)
        # timm's momentum is PyTorch's, 0.1 there, also where epsilon is TensorFlow's.
        moments: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-3 if tf else 1e-5}
        norm: Callable[..., Any] = functools.partial(
            BatchNorm, self.norm_group, use_running_average=not train, **moments, **dtypes
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
        stage, channels = _STAGES[index], self._scaled(_STAGES[index].channels)
        counts = self._block_counts()
        for number in range(counts[index]):
            # As in timm, the rates would reach `drop_path` one block after the last.
            rate = self.drop_rate(sum(counts[:index]) + number, sum(counts), train=train)
            block = functools.partial(Block, stage, stage.stride if number == 0 else 1, channels)
            x = block(self.is_lite, conv, norm, rate, name=f"{name}_{number}")(x)
        return x

    def _block_counts(self) -> list[int]:
        """Returns the number of blocks in each of the seven stages."""
        counts = [math.ceil(stage.blocks * self.depth) for stage in _STAGES]
        if self.is_lite:
            counts[0], counts[-1] = _STAGES[0].blocks, _STAGES[-1].blocks
        return counts

    def _scaled(self, channels: int) -> int:
        """Returns a number of channels times the width, as a multiple of 8 and not below 90% of it."""
        scaled = channels * self.width
        rounded = max(8, int(scaled + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * scaled else rounded + 8


def from_config(network: Network, size: int, kind: str) -> EfficientNet:
    """Builds the backbone of a size and kind for the config's section `network`.

    Raises:
      UserError: `last_stride` is not that of the architecture.
    """
    refuse_last_stride(network)
    width, depth = SIZES[size]
    half: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return EfficientNet(
        width=width * network.width,
        depth=depth,
        is_lite="lite" in kind,
        is_of_tensorflow=kind.startswith("tf_"),
        dtype=jnp.dtype(network.compute_dtype),
        **(half if kind == "tf_efficientnet_lite" else {}),
    )


ARCHITECTURES: Mapping[str, Callable[[Network], Backbone]] = {
    f"{kind}{size}": functools.partial(from_config, size=size, kind=kind)
    for kind in ("efficientnet_lite", "tf_efficientnet_lite", "tf_efficientnet_b")
    for size in range(len(SIZES))
}

# Those of tf_efficientnet_b*.ap_in1k are left out: they take images with another mean and deviation.
_TAGS = {"tf_efficientnet_lite": ("in1k",), "tf_efficientnet_b": ("aa_in1k", "in1k", "ns_jft_in1k")}
_TAGS_OF = {name: _TAGS.get(name[:-1], ()) for name in ARCHITECTURES}
HUB: Hub = licensed("Apache-2.0", _TAGS_OF | {"efficientnet_lite0": ("ra_in1k",)})

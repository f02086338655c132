"""ResNet v1.5 backbones (He et al. 2016; the stride sits on the 3×3 convolution, as in torchvision).

Modules have torchvision's names (`conv1`, `bn1`, `layer1_0`, …), so that names in a weight file follow
from the parameter tree. Padding is explicit and symmetric: Flax's `SAME` pads (0, 1) at stride 2 and
does not reproduce PyTorch's numbers.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.models.backbones.batch_norm import BatchNorm
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.backbones.drop_path import drop_path
from fgr_jax.models.backbones.interface import Backbone, Hub
from fgr_jax.models.backbones.max_pool import max_pool_3x3
from fgr_jax.models.weights.table import CLASSIFIER, CONVOLUTION, NORM, Row, Table

# Residual blocks in each of the four stages, and whether they are bottlenecks.
DEPTHS: dict[int, tuple[tuple[int, int, int, int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}


class _ResidualBlock(nn.Module):
    channels: int
    stride: int
    conv: Callable[..., Any]
    norm: Callable[..., Any]
    drop_rate: float = 0.0

    def shortcut(self, x: jax.Array, channels: int) -> jax.Array:
        """Returns `x`, or a strided 1×1 projection where the shape changes."""
        if self.stride == 1 and x.shape[-1] == channels:
            return x
        x = self.conv(channels, (1, 1), self.stride, name="downsample_conv")(x)
        return self.norm(name="downsample_bn")(x)


class BasicBlock(_ResidualBlock):
    """Two 3×3 convolutions and a shortcut (ResNet-18 and 34)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.channels, (3, 3), self.stride, padding=1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.channels, (3, 3), padding=1, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        return nn.relu(drop_path(self, y, self.drop_rate) + self.shortcut(x, self.channels))


class BottleneckBlock(_ResidualBlock):
    """1×1, 3×3 and 1×1 convolutions and a shortcut (ResNet-50, 101 and 152)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.channels, (1, 1), name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.channels, (3, 3), self.stride, padding=1, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y))
        y = self.conv(4 * self.channels, (1, 1), name="conv3")(y)
        y = self.norm(name="bn3")(y)
        y = drop_path(self, y, self.drop_rate)
        return nn.relu(y + self.shortcut(x, 4 * self.channels))


class ResNet(Backbone):
    """A backbone up to and including the last residual stage.

    Attributes:
      depth: 18, 34, 50, 101 or 152.
      width: factor on every channel count.
      last_stride: stride of the last stage; 2 is the standard network (1 cell for 32×32 pixels),
        1 doubles the resolution of the maps and quadruples the cost of the last stage.
    """

    depth: int
    width: float = 1.0
    last_stride: int = 2

    stages = ("stem", "layer1", "layer2", "layer3", "layer4")
    table: ClassVar[Table] = (
        Row(r"backbone/(conv1)", r"\1", CONVOLUTION),
        Row(r"backbone/(bn1)", r"\1", NORM),
        Row(r"backbone/layer(\d)_(\d+)/(conv\d)", r"layer\1.\2.\3", CONVOLUTION),
        Row(r"backbone/layer(\d)_(\d+)/(bn\d)", r"layer\1.\2.\3", NORM),
        Row(r"backbone/layer(\d)_(\d+)/downsample_conv", r"layer\1.\2.downsample.0", CONVOLUTION),
        Row(r"backbone/layer(\d)_(\d+)/downsample_bn", r"layer\1.\2.downsample.1", NORM),
        Row(r"classifier", r"fc", CLASSIFIER),
    )

    @property
    def stride(self) -> int:
        """The number of pixels from one cell of the features to the next."""
        return 16 * self.last_stride

    def stage(self, name: str, x: jax.Array, *, train: bool) -> jax.Array:
        """Computes the stem, or one of the four stages of residual blocks."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Callable[..., Any] = functools.partial(Convolution, use_bias=False, **dtypes)
        # PyTorch's eps and momentum (0.1 there). Flax keeps the biased batch variance in its
        # running average where PyTorch keeps the unbiased one, n/(n − 1) times as large.
        norm: Callable[..., Any] = functools.partial(
            BatchNorm,
            self.norm_group,
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            **dtypes,
        )
        channels = round(64 * self.width)
        if name == "stem":
            x = conv(channels, (7, 7), 2, padding=3, name="conv1")(x.astype(self.dtype))
            return max_pool_3x3(nn.relu(norm(name="bn1")(x)))
        block_counts, bottleneck = DEPTHS[self.depth]
        block = BottleneckBlock if bottleneck else BasicBlock
        index = int(name.removeprefix("layer")) - 1
        first_stride = (1, 2, 2, self.last_stride)[index]
        for number in range(block_counts[index]):
            stride = first_stride if number == 0 else 1
            rate = self.drop_rate(
                sum(block_counts[:index]) + number, sum(block_counts) - 1, train=train
            )
            x = block(channels * 2**index, stride, conv, norm, rate, name=f"{name}_{number}")(x)
        return x


def from_config(network: Network, depth: int | None = None) -> ResNet:
    """Builds the backbone of a depth, or of the config's, for the config's section `network`."""
    return ResNet(
        depth=depth or network.depth,
        width=network.width,
        last_stride=network.last_stride,
        dtype=jnp.dtype(network.compute_dtype),
    )


ARCHITECTURES: Mapping[str, Callable[[Network], Backbone]] = {
    # The depth is a field of its own.
    "resnet": from_config,
    **{f"resnet{depth}": functools.partial(from_config, depth=depth) for depth in DEPTHS},
}

# Weights on the hub, by depth, and their licenses by the beginning of the tag.
_OF_ALL = ("a1_in1k", "a2_in1k", "a3_in1k", "gluon_in1k", "tv_in1k")
_OF_FACEBOOK = ("fb_ssl_yfcc100m_ft_in1k", "fb_swsl_ig1b_ft_in1k")
_TAGS = {
    18: (*_OF_ALL, *_OF_FACEBOOK),
    34: _OF_ALL,
    50: (*_OF_ALL, "tv2_in1k", *_OF_FACEBOOK),
    101: (*_OF_ALL, "tv2_in1k"),
    152: (*_OF_ALL, "tv2_in1k"),
}
_LICENSES = {"tv": "BSD-3-Clause", "fb": "CC-BY-NC-4.0"}
HUB: Hub = {
    f"resnet{depth}": {tag: _LICENSES.get(tag[:2], "Apache-2.0") for tag in tags}
    for depth, tags in _TAGS.items()
}

"""ResNet v1.5 backbones (He et al. 2016; the stride sits on the 3×3 convolution, as in torchvision).

Modules have torchvision's names (`conv1`, `bn1`, `layer1_0`, …), so that names in a weight file follow
from the parameter tree. Padding is explicit and symmetric: Flax's `SAME` pads (0, 1) at stride 2 and
does not reproduce PyTorch's numbers.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.models.backbones.max_pool import max_pool_3x3

# Residual blocks in each of the four stages, and whether they are bottlenecks.
DEPTHS: dict[int, tuple[tuple[int, int, int, int], bool]] = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}

# torchvision's: kaiming_normal_(mode="fan_out", nonlinearity="relu").
_CONV_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class _ResidualBlock(nn.Module):
    channels: int
    stride: int
    conv: Callable[..., Any]
    norm: Callable[..., Any]

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
        return nn.relu(y + self.shortcut(x, self.channels))


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
        return nn.relu(y + self.shortcut(x, 4 * self.channels))


class ResNet(nn.Module):
    """A backbone up to and including the last residual stage.

    The outputs of the stem and the four stages are sown into the collection "intermediates" under
    the names "stem", "layer1" … "layer4": `apply(..., mutable=["intermediates"])` returns them.

    Attributes:
      depth: 18, 34, 50, 101 or 152.
      width: factor on every channel count.
      last_stride: stride of the last stage; 2 is the standard network (1 cell for 32×32 pixels),
        1 doubles the resolution of the maps and quadruples the cost of the last stage.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters and running statistics.
    """

    depth: int
    width: float = 1.0
    last_stride: int = 2
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps normalized images `[B, H, W, 3]` to features `[B, ⌈H/stride⌉, ⌈W/stride⌉, D]`.

        With `train`, BatchNorm uses the batch's statistics and updates the running ones (collection
        "batch_stats", which must be mutable then); otherwise it uses the running ones.
        """
        block_counts, bottleneck = DEPTHS[self.depth]
        block = BottleneckBlock if bottleneck else BasicBlock
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv: Callable[..., Any] = functools.partial(
            nn.Conv, use_bias=False, padding=0, kernel_init=_CONV_INIT, **dtypes
        )
        # PyTorch's eps and momentum (0.1 there). Flax keeps the biased batch variance in its
        # running average where PyTorch keeps the unbiased one, n/(n − 1) times as large.
        norm: Callable[..., Any] = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, **dtypes
        )
        channels = round(64 * self.width)
        x = images.astype(self.dtype)
        x = conv(channels, (7, 7), 2, padding=3, name="conv1")(x)
        x = nn.relu(norm(name="bn1")(x))
        x = max_pool_3x3(x)
        self.sow("intermediates", "stem", x)
        first_strides = (1, 2, 2, self.last_stride)
        for stage, blocks in enumerate(block_counts):
            for index in range(blocks):
                stride = first_strides[stage] if index == 0 else 1
                name = f"layer{stage + 1}_{index}"
                x = block(channels * 2**stage, stride, conv, norm, name=name)(x)
            self.sow("intermediates", f"layer{stage + 1}", x)
        return x

    @property
    def stride(self) -> int:
        """The number of pixels from one cell of the features to the next."""
        return 16 * self.last_stride


def from_config(network: Network) -> ResNet:
    """Builds the backbone for the config's section `network`."""
    return ResNet(
        depth=network.depth,
        width=network.width,
        last_stride=network.last_stride,
        dtype=jnp.dtype(network.compute_dtype),
    )

"""A convolution in the form that is fastest on the device, with the parameters of `flax.linen.Conv`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.models.backbones.depthwise import depthwise_convolution
from fgr_jax.models.backbones.products import channel_product

# PyTorch's kaiming_normal_(mode="fan_out", nonlinearity="relu"), torchvision's for ResNets.
KAIMING_NORMAL = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Convolution(nn.Module):
    """Convolves `[B, H, W, C]` to `[B, h, w, features]`.

    Attributes:
      features: the number of output channels.
      kernel_size: rows and columns of the kernel.
      stride: the step of the kernel, in rows and columns.
      padding: zeros on each side of rows and columns, as in PyTorch; None pads as TensorFlow's SAME.
      groups: the channels are divided into this many groups, convolved separately.
      use_bias: whether a bias is added.
    """

    features: int
    kernel_size: tuple[int, int]
    stride: int = 1
    padding: int | None = 0
    groups: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = KAIMING_NORMAL
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the convolution of `x`."""
        shape = (*self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = self._convolved(x, kernel)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            y += bias.astype(self.dtype)
        return y

    def _convolved(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        if self.kernel_size == (1, 1) and self.groups == 1 and not self.padding:
            # A matrix product: XLA's 1×1 convolutions on CPUs are half as fast.
            return channel_product(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        if self.padding is None:
            sides = x.shape[1:3]
            strides = (self.stride, self.stride)
            rows, columns = jax.lax.padtype_to_pads(sides, self.kernel_size, strides, "SAME")
        else:
            rows = columns = (self.padding, self.padding)
        padding = (rows, columns)
        if x.shape[-1] == self.groups == self.features:
            return depthwise_convolution(x, kernel, self.stride, padding)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )

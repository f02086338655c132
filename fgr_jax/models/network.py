"""The network of figure 2: a backbone and a 1×1 convolution to class activation maps."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.models.backbones.resnet import ResNet

# torch.nn.Linear's default, U(−1/√fan_in, 1/√fan_in).
_CLASSIFIER_INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class CamNetwork(nn.Module):
    """Images to class activation maps. Scores are the maps' global average, nothing else.

    There is no pooling before the classifier and no fully connected layer: the block needs the maps.
    See `ResNet` for the attributes they share and for the named stage outputs.
    """

    num_classes: int
    depth: int = 50
    width: float = 1.0
    last_stride: int = 2
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Maps normalized images `[B, H, W, 3]` to maps `[B, H/32, W/32, C]`, at least float32."""
        features = ResNet(
            depth=self.depth,
            width=self.width,
            last_stride=self.last_stride,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="backbone",
        )(images, train=train)
        maps = nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=_CLASSIFIER_INIT,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="classifier",
        )(features)
        return maps.astype(jnp.promote_types(maps.dtype, jnp.float32))

    def map_size(self, pixels: int) -> int:
        """Rows (or columns) of the maps of a picture with `pixels` rows (or columns)."""
        return -(-pixels // self.stride)

    @property
    def stride(self) -> int:
        """Pixels from one map cell to the next."""
        return 16 * self.last_stride


def class_means(params: Any) -> jax.Array:
    """The classifier's weights as one row a class, `[C, D]`: with L-GM the means μ."""
    return params["classifier"]["kernel"][0, 0].T


def with_bias(params: Any, bias: jax.Array) -> Any:
    """The parameters with `bias` `[C]` in place of the classifier's own."""
    return {**params, "classifier": {**params["classifier"], "bias": bias}}


def parameter_count(params: Any) -> int:
    """The number of trainable values in a parameter tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))

"""Backbones that compile in a second or two."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from fgr_jax.config import Network as Section
from fgr_jax.models.backbones.batch_norm import BatchNorm
from fgr_jax.models.backbones.drop_path import drop_path
from fgr_jax.models.backbones.interface import Backbone
from fgr_jax.models.backbones.resnet import ResNet
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network

# A file of the user's own: two layers without BatchNorm, and noise from the stream of stochastic depth.
PATCHES = """
import flax.linen as nn
import jax


class Patches(nn.Module):
    noise: bool
    stride: int = 8

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Conv(8, (4, 4), 4)(images))
        if self.noise and train:
            x *= jax.random.uniform(self.make_rng("drop_path"), (len(x), 1, 1, 1))
        return nn.relu(nn.Conv(16, (2, 2), 2)(x))


def patches(network):
    return Patches(noise=False)


def noisy(network):
    return Patches(noise=True)
"""


class Small(Backbone):
    """Three stages of residual 3×3 convolutions with BatchNorm, of the same size."""

    blocks: int = 1
    channels: int = 8
    stages = ("one", "two", "three")
    stride = 2

    def stage(self, name: str, x: Any, *, train: bool) -> Any:
        for number in range(self.blocks):
            stride = 2 if name == "one" and number == 0 else 1
            y = nn.Conv(self.channels, (3, 3), stride, name=f"{name}_conv{number}")(x)
            norm: Any = BatchNorm(
                self.norm_group,
                use_running_average=not train,
                momentum=0.9,
                epsilon=1e-5,
                name=f"{name}_bn{number}",
            )
            y = drop_path(self, nn.relu(norm(y)), self.drop_path if train else 0)
            x = x + y if stride == 1 else y
        return x


# For `network.backbone`.
STAGED_BACKBONE = f"{__file__}:staged"


def staged(network: Section) -> Small:
    """Builds the backbone for the config's section `network`."""
    del network
    return Small()


class ShortResNet(ResNet):
    """A ResNet without its last three stages."""

    stages = ("stem", "layer1")  # type: ignore[assignment]  # fewer
    stride = 4


# For `network.backbone`.
SHORT_RESNET = f"{__file__}:short_resnet"


def short_resnet(network: Section) -> ShortResNet:
    """Builds the backbone for the config's section `network`."""
    dtype = jnp.dtype(network.compute_dtype)
    return ShortResNet(depth=network.depth, width=network.width, dtype=dtype)


def small_network(classes: int = 5, **attributes: Any) -> Network:
    """Returns a small backbone with the CAM head."""
    return Network(Small(**attributes), CamHead(classes))

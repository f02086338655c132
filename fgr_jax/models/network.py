"""A network: a backbone and a head (figure 2 of the paper), as a config describes them."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.files.python_files import listed_or_own
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.backbones import BACKBONES
from fgr_jax.models.backbones.interface import IMAGENET_MEAN, IMAGENET_STD
from fgr_jax.models.heads import HEADS
from fgr_jax.models.weights.table import Table


class Network(nn.Module):
    """Maps images to the outputs of a head.

    Attributes:
      backbone: maps images `[B, H, W, 3]` to features `[B, h, w, D]`, called with `train`. Its attribute
        `stride` is the number of pixels from one cell to the next; the others of a `Backbone` are
        optional.
      classifier: the head, which maps features to `Outputs`, called with `train`. Its parameters have
        this name.
    """

    backbone: nn.Module
    classifier: nn.Module

    def __call__(self, images: jax.Array, *, train: bool) -> Outputs:
        """Maps normalized images `[B, H, W, 3]` to outputs; `train` is as for `Backbone`."""
        return self.classifier(self.backbone(images, train=train), train=train)

    @property
    def stride(self) -> int:
        """The number of pixels from one map cell to the next."""
        return self.backbone.stride

    @property
    def origin(self) -> float:
        """The row and column of the pixel that the first map cell is centered at."""
        return getattr(self.backbone, "origin", 0.0)

    @property
    def table(self) -> Table:
        """The names of the variables in weight files."""
        return getattr(self.backbone, "table", ())

    def normalize(self, images: jax.Array) -> jax.Array:
        """Converts uint8 `[B, H, W, 3]` to float32, standardized as the backbone takes it."""
        mean = np.asarray(getattr(self.backbone, "mean", IMAGENET_MEAN), np.float32)
        std = np.asarray(getattr(self.backbone, "std", IMAGENET_STD), np.float32)
        return (images.astype(jnp.float32) / 255 - mean) / std


def build_network(config: Config, num_classes: int) -> Network:
    """Builds the network that a config describes.

    Raises:
      UserError: `network.backbone` or `network.head` is unknown or fails.
    """
    section = config.network
    # A non-zero weight of L-GM selects its own head.
    head = "gaussian" if config.loss.lgm else section.head
    backbone: nn.Module = listed_or_own(
        section.backbone,
        BACKBONES,
        nn.Module,
        flag="--config.network.backbone",
        arguments=[section],
    )
    classifier: nn.Module = listed_or_own(
        head, HEADS, nn.Module, flag="--config.network.head", arguments=[section, num_classes]
    )
    return Network(backbone, classifier)


def network_name(network: config_lib.Network) -> str:
    """Returns the display name of the backbone, such as "ResNet-50"."""
    if network.backbone != "resnet":
        return network.backbone
    return f"ResNet-{network.depth}" + (f" × {network.width:g}" if network.width != 1 else "")


def description(config: Config, network: Network, variables: Any) -> str:
    """Describes a network, as in "ResNet-50, 23,917,832 parameters; 448×448 pixels give maps of …"."""
    size = config.data.crop
    maps = output_shapes(network, variables, size).maps
    gives = "no maps" if maps is None else f"maps of {maps.shape[1]}×{maps.shape[2]} cells"
    name, count = network_name(config.network), parameter_count(variables["params"])
    return f"{name}, {count:,} parameters; {size}×{size} pixels give {gives}"


def forward(network: Network, variables: Any, images: jax.Array) -> Outputs:
    """Applies the network to uint8 images `[B, H, W, 3]` in test mode: running statistics, no block."""
    outputs: Any = network.apply(variables, network.normalize(images), train=False)
    return outputs


def output_shapes(network: Network, variables: Any, size: int) -> Outputs:
    """Returns the shapes and dtypes of the outputs for one image of `size` × `size` pixels."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    return jax.eval_shape(functools.partial(forward, network), variables, image)


def parameter_count(params: Any) -> int:
    """Returns the number of trainable values in a parameter tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))

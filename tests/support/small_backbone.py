"""A backbone of two layers, as a config names it, which is compiled in a second."""

import flax.linen as nn
import jax

from fgr_jax.config import Network

# For `network.backbone`.
SMALL_BACKBONE = f"{__file__}:patches"


class Patches(nn.Module):
    """Two convolutions without overlap, each with batch normalization."""

    stride: int = 16

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = images
        for features in (8, 16):
            x = nn.Conv(features, (4, 4), 4, use_bias=False)(x)
            x = nn.relu(nn.BatchNorm(not train)(x))
        return x


def patches(network: Network) -> Patches:
    """Builds the backbone."""
    del network
    return Patches()

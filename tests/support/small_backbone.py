"""A backbone of two layers, as a config names it, which is compiled in a second."""

import flax.linen as nn
import jax

from fgr_jax.config import Network

# For `network.backbone`.
SMALL_BACKBONE = f"{__file__}:patches"


class Patches(nn.Module):
    """Two convolutions without overlap, with batch normalization between them."""

    stride: int = 16

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        x = nn.Conv(8, (4, 4), 4, use_bias=False)(images)
        x = nn.relu(nn.BatchNorm(not train)(x))
        return nn.relu(nn.Conv(16, (4, 4), 4)(x))


def patches(network: Network) -> Patches:
    """Builds the backbone."""
    del network
    return Patches()

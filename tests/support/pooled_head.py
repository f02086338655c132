"""A head of one's own without class activation maps, as a config names it."""

import flax.linen as nn
import jax

from fgr_jax.config import Network
from fgr_jax.losses.interface import Outputs

# For `network.head`.
POOLED_HEAD = f"{__file__}:pooled_head"


class PooledHead(nn.Module):
    """Average pooling and a linear classifier."""

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        del train
        pooled = features.mean((1, 2))
        return Outputs(nn.Dense(self.num_classes)(pooled), pooled)


def pooled_head(network: Network, num_classes: int) -> PooledHead:
    """Builds the head."""
    del network
    return PooledHead(num_classes)

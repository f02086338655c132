"""Networks by their numbers, without a config."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.models.backbones.resnet import ResNet
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network


def cam_network(
    num_classes: int,
    *,
    depth: int = 50,
    width: float = 1.0,
    last_stride: int = 2,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
) -> Network:
    """Returns a ResNet with the CAM head."""
    return Network(
        ResNet(
            depth=depth,
            width=width,
            last_stride=last_stride,
            dtype=dtype,
            param_dtype=param_dtype,
        ),
        CamHead(num_classes, dtype=dtype, param_dtype=param_dtype),
    )


def random_variables(network: Network, height: int, width: int, seed: int = 0) -> Any:
    """Returns variables as the network initializes them, but drawn by NumPy: nothing is compiled."""
    shape = (1, height, width, 3)
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(shape), train=False))
    generator = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path[-1].key == "kernel":
            deviation = np.sqrt(2 * leaf.shape[-2] / leaf.size)
            return jnp.asarray(generator.normal(0, deviation, leaf.shape), leaf.dtype)
        return jnp.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, like)


def by_path(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves of a tree by their paths."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }

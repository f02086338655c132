"""Networks by their numbers, without a config."""

import contextlib
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.models.backbones import convolution, depthwise
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


def traced_faster() -> contextlib.AbstractContextManager:
    """Returns a context in which a depthwise convolution is one operation.

    As the sum of shifted images that it is on CPUs, it has the same kernel, and the variables of
    ConvNeXt take three times as long to trace.
    """
    return mock.patch.object(convolution, "depthwise_convolution", depthwise.grouped)


@functools.cache
def shapes_of(network: Network, height: int, width: int) -> Any:
    """Returns the shapes and dtypes of the variables of a network of images of this size."""
    images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    with traced_faster():
        return jax.eval_shape(lambda x: network.init(jax.random.key(0), x, train=False), images)


def random_variables(network: Network, height: int, width: int, seed: int = 0) -> Any:
    """Returns variables as the network initializes them, but drawn by NumPy: nothing is compiled."""
    generator = np.random.default_rng(seed)

    def draw(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if path[-1].key == "kernel":
            deviation = np.sqrt(2 * leaf.shape[-2] / leaf.size)
            drawn = generator.normal(0, deviation, leaf.shape)
        else:
            drawn = np.full(leaf.shape, path[-1].key in ("scale", "var"))
        return jax.device_put(drawn.astype(leaf.dtype))  # `jnp.asarray` is compiled for each shape

    return jax.tree_util.tree_map_with_path(draw, shapes_of(network, height, width))


def by_path(tree: Any) -> dict[str, np.ndarray]:
    """Returns the leaves of a tree by their paths."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }

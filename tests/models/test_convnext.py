"""ConvNeXt: its last normalization before pooling, other dtypes, and its initial weights."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
from goldens import recipe

from fgr_jax.models.backbones.convnext import ConvNeXt, PooledNorm
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network


def narrow(dtype: Any = jnp.float32) -> Any:
    """Returns a network with few blocks and channels."""
    backbone = ConvNeXt(depths=(1, 1, 1, 1), channels=(8, 12, 16, 24), dtype=dtype)
    return Network(backbone, CamHead(5, dtype=dtype))


def test_every_cell_is_normalized_by_the_average_of_all() -> None:
    """Cells keep their differences; a LayerNorm of each cell alone would lose their magnitudes."""
    rng = recipe.rng_for("features", 0)
    features = rng.normal(3, 2, (2, 4, 3, 16)).astype(np.float32)
    scale, bias = rng.uniform(0.5, 2, 16), rng.normal(size=16)
    norm = PooledNorm(dtype=jnp.float32, param_dtype=jnp.float32)
    params = {"scale": scale, "bias": bias}
    ours = np.asarray(jax.jit(norm.apply)({"params": params}, features))
    pooled = features.mean((1, 2))
    deviation = np.sqrt(pooled.var(-1, keepdims=True) + 1e-6)
    theirs = (pooled - pooled.mean(-1, keepdims=True)) / deviation * scale + bias
    np.testing.assert_allclose(ours.mean((1, 2)), theirs, rtol=1e-4, atol=1e-5)
    slope = (ours[:, 0, 0] - ours[:, 1, 2]) / (features[:, 0, 0] - features[:, 1, 2])
    np.testing.assert_allclose(slope, scale / deviation, rtol=1e-3)


def test_bfloat16_is_near_float32() -> None:
    networks = [narrow(dtype) for dtype in (jnp.float32, jnp.bfloat16)]
    variables = parity.variables_of(networks[0], 64)
    images = recipe.images(2, 64, 64).astype(np.float32)
    single, half = (
        np.asarray(jax.jit(functools.partial(network.apply, train=False))(variables, images).scores)
        for network in networks
    )
    difference = np.linalg.norm(half - single) / np.linalg.norm(single)
    print(f"bfloat16: scores {difference:.1e}")
    assert 0 < difference < 0.05


def test_every_parameter_has_a_gradient_at_first() -> None:
    """Residual branches are scaled by 1e-6 at first, and their gradients are not lost in rounding."""
    network = narrow()
    images = recipe.images(2, 64, 64).astype(np.float32)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 0 + 1e-6 if "gamma" in jax.tree_util.keystr(path) else leaf,
        parity.variables_of(network, 64)["params"],
    )

    @jax.jit
    @jax.grad
    def gradients_of(params: Any, images: Any) -> Any:
        return network.apply({"params": params}, images, train=True).scores[:, 0].sum()

    gradients = jax.device_get(gradients_of(params, images))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients["backbone"]):
        assert np.all(np.isfinite(leaf)), path
        assert np.any(leaf), path

"""Vision transformers: position embeddings for other images, stages of two kinds of tokens."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from goldens import recipe
from goldens.families import POSITIONS
from parity import goldens_of

from fgr_jax.config import Network as NetworkConfig
from fgr_jax.errors import UserError
from fgr_jax.models.backbones import BACKBONES
from fgr_jax.models.backbones.interface import IMAGENET_MEAN
from fgr_jax.models.backbones.vit import ViT
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network
from fgr_jax.models.weights import positions
from fgr_jax.models.weights.table import OWN_PATHS, from_tensors, to_tensors

PATCH = 4


def vit(dtype: Any = jnp.float32, frozen: str = "", registers: int = 2) -> Any:
    backbone = ViT(
        patch_size=PATCH,
        depth=4,
        heads=2,
        channels=16,
        layer_scale=registers > 0,
        registers=registers,
        frozen=frozen,
        dtype=dtype,
    )
    return Network(backbone, CamHead(5, dtype=dtype))


@pytest.mark.parametrize(("prefix", "old", "new"), POSITIONS)
def test_positions_are_interpolated_as_timm_does(prefix: int, old: int, new: int) -> None:
    embeddings = recipe.positions(prefix, old)
    shape = (1, prefix + new * new, 8)
    with jax.enable_x64(True):
        exact = positions.resampled(embeddings, shape)
    assert exact.shape == shape
    golden = goldens_of("vit")[f"positions/{prefix}/{old}-{new}"]
    assert recipe.relative_difference(exact, golden) < 1e-9
    single = positions.resampled(embeddings.astype(np.float32), shape)
    assert single.dtype == np.float32
    assert recipe.relative_difference(single, golden) < 1e-6


@pytest.mark.parametrize("registers", [0, 2])
@pytest.mark.parametrize("of_a_run", [True, False])
def test_weights_for_images_of_another_size(registers: int, of_a_run: bool) -> None:
    """Of a file and of another run, only the position embeddings of patches change."""
    network = vit(registers=registers)
    table = OWN_PATHS if of_a_run else network.table
    small, large = parity.variables_of(network, 20), parity.variables_of(network, 32)
    like = jax.tree.map(np.zeros_like, large)
    taken = to_tensors(from_tensors(to_tensors(small, table), like, table, "w"), OWN_PATHS)
    theirs = to_tensors(small, OWN_PATHS)
    moved = {name for name in taken if not np.array_equal(taken[name], theirs[name])}
    assert moved == {"backbone/pos_embed"}
    ours, old = taken["backbone/pos_embed"], theirs["backbone/pos_embed"]
    of_class = 0 if registers else 1
    assert ours.shape == (1, of_class + 64, 16)
    np.testing.assert_array_equal(ours[:, :of_class], old[:, :of_class])
    np.testing.assert_array_equal(ours, positions.resampled(old, ours.shape))


@pytest.mark.parametrize("shape", [(1, 25 + 2, 16), (1, 26, 16), (1, 25, 8), (2, 25, 16), (25, 16)])
def test_positions_that_cannot_be_interpolated_are_refused(shape: tuple[int, ...]) -> None:
    """They are of no square grid, of the class token too, of another width, or no such tensor."""
    network = vit()
    like = parity.variables_of(network, 32)
    tensors = to_tensors(like, network.table) | {"pos_embed": np.zeros(shape, np.float32)}
    assert positions.resampled(tensors["pos_embed"], (1, 64, 16)) is tensors["pos_embed"]
    with pytest.raises(UserError, match=r"of the wrong shape: pos_embed .*, not \[1, 64, 16\]"):
        from_tensors(tensors, like, network.table, "w")


def test_a_frozen_stage_has_no_gradient_and_its_output_continues() -> None:
    """Between stages there are two arrays, of patches and of other tokens."""
    network = vit(frozen="blocks2")
    variables = parity.variables_of(network, 20)
    images = recipe.images(2, 20, 20).astype(np.float32)

    def score(params: Any) -> Any:
        outputs, state = network.apply(
            {"params": params}, images, train=True, mutable=["intermediates"]
        )
        return outputs.scores.sum(), (outputs, state)

    found = jax.jit(jax.grad(score, has_aux=True))(variables["params"])
    gradients, (outputs, state) = jax.device_get(found)
    moving = {
        name
        for name, tree in gradients["backbone"].items()
        if any(np.any(leaf) for leaf in jax.tree.leaves(tree))
    }
    assert moving == {"blocks_2", "blocks_3", "norm"}
    (tokens,) = state["intermediates"]["backbone"]["blocks2"]
    assert [part.shape for part in tokens] == [(2, 5, 5, 16), (2, 3, 16)]
    apply = functools.partial(network.backbone.apply, train=False, start="blocks2")
    features = np.asarray(jax.jit(apply)({"params": variables["params"]["backbone"]}, tokens))
    np.testing.assert_allclose(features.mean((1, 2)), outputs.features, rtol=1e-5, atol=1e-6)


def test_bfloat16_is_near_float32() -> None:
    variables = parity.variables_of(vit(), 20)
    images = recipe.images(2, 20, 20).astype(np.float32)
    single, half = (
        np.asarray(
            jax.jit(functools.partial(vit(dtype).apply, train=False))(variables, images).scores
        )
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert half.dtype == jnp.float32
    difference = np.linalg.norm(half - single) / np.linalg.norm(single)
    assert 0 < difference < 0.05


def test_width_changes_the_number_of_attention_heads() -> None:
    backbone: Any = BACKBONES["vit_base_patch14_dinov2"](NetworkConfig(width=0.25))
    assert (backbone.heads, backbone.channels, backbone.depth) == (3, 192, 12)
    assert (backbone.mean, backbone.registers, backbone.layer_scale) == (IMAGENET_MEAN, 0, True)


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "convnext_tiny"])
def test_the_stride_of_other_architectures_is_fixed(name: str) -> None:
    with pytest.raises(UserError, match=f"last_stride=1 is for ResNets: set it to 2 .*={name}"):
        BACKBONES[name](NetworkConfig(backbone=name, last_stride=1))

"""Stochastic depth: the rates of all families are timm's, and the draws."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import traced_faster
from small_backbones import PATCHES
from tiny_step import batch_of, build

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.distributed import batch_sharding, data_mesh
from fgr_jax.errors import UserError
from fgr_jax.models.backbones import BACKBONES, convnext, efficientnet, resnet, vit
from fgr_jax.models.backbones.convnext import ConvNeXt
from fgr_jax.models.backbones.drop_path import drop_path
from fgr_jax.models.backbones.interface import Backbone
from fgr_jax.models.backbones.resnet import ResNet
from fgr_jax.models.backbones.vit import ViT
from fgr_jax.models.network import build_network


def lite0() -> Backbone:
    section = config_lib.Network(backbone="efficientnet_lite0", width=1.0)
    backbone = BACKBONES["efficientnet_lite0"](section)
    assert isinstance(backbone, Backbone)
    return backbone


def linear(count: int) -> list[float]:
    """torch.linspace(0, 0.4, count)."""
    return [0.4 * index / (count - 1) for index in range(count)]


# EfficientNet's rates are rate · index / count, and only blocks with a shortcut have one.
_WITH_SHORTCUT = [2, 4, 6, 7, 9, 10, 12, 13, 14]
FAMILIES: dict[str, tuple[Any, list[float]]] = {
    "resnet": (ResNet(depth=18, width=1 / 16), linear(8)),
    "convnext": (ConvNeXt(depths=(1, 2, 3, 1), channels=(4, 4, 8, 8)), linear(7)),
    "vit": (ViT(patch_size=8, depth=4, heads=1, channels=8), list(np.repeat(linear(4), 2))),
    "efficientnet": (lite0(), [0.4 * index / 16 for index in _WITH_SHORTCUT]),
}


def rates_of(monkeypatch: pytest.MonkeyPatch, backbone: Any, *, train: bool) -> list[float]:
    """The rates of the branches, in order; nothing is computed."""
    found: list[float] = []

    def noted(_: nn.Module, y: jax.Array, rate: float) -> jax.Array:
        found.append(rate)
        return y

    for module in (resnet, convnext, vit, efficientnet):
        monkeypatch.setattr(module, "drop_path", noted)
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    with traced_faster():
        jax.eval_shape(lambda x: backbone.init(jax.random.key(0), x, train=train), images)
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_rates_grow_linearly_as_in_timm(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, expected = FAMILIES[family]
    assert not any(rates_of(monkeypatch, backbone, train=True))
    backbone = backbone.clone(drop_path=0.4)
    np.testing.assert_allclose(rates_of(monkeypatch, backbone, train=True), expected, rtol=1e-12)
    assert not any(rates_of(monkeypatch, backbone, train=False))
    frozen = backbone.clone(frozen=backbone.stages[-2])
    after = rates_of(monkeypatch, frozen, train=True)
    kept = {"resnet": 2, "convnext": 0, "vit": 0, "efficientnet": 0}[family]
    assert [rate > 0 for rate in after] == [False] * (len(after) - kept) + [True] * kept


class Drop(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return drop_path(self, x, 0.3)


def test_branches_are_left_out_for_an_example_and_scaled() -> None:
    count = 20_000
    x = np.ones((count, 2, 3), np.float32)
    draws = {}
    for devices in (1, 8):
        sharding = batch_sharding(data_mesh(jax.devices()[:devices]))
        run = jax.jit(
            lambda x: Drop().apply({}, x, rngs={"drop_path": jax.random.key(1)}),
            in_shardings=sharding,
            out_shardings=sharding,
        )
        draws[devices] = np.asarray(run(jax.device_put(x, sharding)))
    np.testing.assert_array_equal(draws[1], draws[8])
    kept = draws[1][:, 0, 0] > 0
    np.testing.assert_allclose(
        draws[1], np.where(kept[:, None, None], 1 / 0.7, 0) * np.ones((1, 2, 3))
    )
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.3 * 0.7 / count)


@pytest.mark.parametrize("parts", [1, 2])
def test_each_step_draws_from_the_stream(tiny: Config, tmp_path: Path, parts: int) -> None:
    (tmp_path / "mine.py").write_text(PATCHES)
    tiny.network.backbone, tiny.diversification.alpha = f"{tmp_path}/mine.py:noisy", 1.0
    tiny.optimizer.accumulate = parts
    losses = {}
    for devices in (1, 4):
        steps, state = build(tiny, devices=devices)
        shardings, state = jax.tree.map(lambda leaf: leaf.sharding, state), jax.device_get(state)
        batch = batch_of(8, devices=devices)
        for step in (3, 4, 3):
            copy = jax.device_put(state, shardings).replace(step=jnp.int32(step))
            losses[devices, step] = float(steps.train(copy, batch)[1].loss)
    assert losses[1, 3] != pytest.approx(losses[1, 4], rel=1e-3)
    for step in (3, 4):
        assert losses[4, step] == pytest.approx(losses[1, step], rel=1e-5)


@pytest.mark.parametrize("field", ["drop_path", "norm_group", "remat"])
def test_a_backbone_of_ones_own_has_none_of_it(tiny: Config, tmp_path: Path, field: str) -> None:
    (tmp_path / "mine.py").write_text(PATCHES)
    tiny.network.backbone = f"{tmp_path}/mine.py:patches"
    setattr(tiny.network, field, {"drop_path": 0.1}.get(field, 1))
    with pytest.raises(
        UserError, match=rf"network.{field}=.* is for the listed backbones, not for"
    ):
        build_network(tiny, 5)

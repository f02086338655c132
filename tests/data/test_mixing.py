"""Mixup and CutMix."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from small_backbones import PATCHES
from tiny_step import CLASSES, batch_of, build, shown

from fgr_jax import config as config_lib
from fgr_jax.benchmark.compiled import collectives
from fgr_jax.config import Config, Data
from fgr_jax.data.mixing import mixed, partners
from fgr_jax.errors import UserError
from fgr_jax.models.network import build_network
from fgr_jax.random_streams import Stream, stream_key

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(6, 12, 12, 3)), jnp.float32)
PARTNERS = np.asarray(IMAGES)[[1, 0, 3, 2, 5, 4]]
MASK = jnp.asarray([True, True, False, True, True, True])


def shares(data: Data, count: int) -> np.ndarray:
    """The share of an image of 64×64 pixels, for so many keys."""
    images, mask = jnp.zeros((2, 64, 64, 1)), jnp.ones(2, bool)
    keys = jax.random.split(jax.random.key(0), count)
    of_key = jax.jit(
        lambda keys: jax.lax.map(lambda key: mixed(data, key, images, mask)[1][0], keys)
    )
    return np.asarray(of_key(keys))


def test_neighbors_are_partners() -> None:
    np.testing.assert_array_equal(partners(IMAGES), PARTNERS)


def test_mixup_is_the_same_share_of_every_image() -> None:
    images, share = mixed(Data(mixup=0.7), jax.random.key(3), IMAGES, MASK)
    λ = float(share[0])
    assert 0 < λ < 1
    np.testing.assert_allclose(share, [λ, λ, λ, 1, λ, λ], rtol=1e-6)  # image 2 does not count
    weights = np.asarray(share)[:, None, None, None]
    np.testing.assert_allclose(images, weights * IMAGES + (1 - weights) * PARTNERS, atol=1e-6)


def test_cutmix_is_one_box_of_the_partner() -> None:
    images, share = mixed(Data(cutmix=1.0), jax.random.key(0), IMAGES, MASK)
    is_own, is_partners = images == IMAGES, images == PARTNERS
    assert (is_own ^ is_partners).all()
    assert is_own[3].all()
    box = is_partners[0, :, :, 0]
    assert 0 < box.sum() < 144
    np.testing.assert_array_equal(box, np.outer(box.any(1), box.any(0)))
    assert all(np.diff(np.flatnonzero(box.any(axis))).max(initial=1) == 1 for axis in (0, 1))
    for row in (0, 1, 2, 4, 5):
        np.testing.assert_array_equal(is_partners[row, :, :, 0], box)
    np.testing.assert_allclose(
        share, np.where(np.asarray(MASK)[[1, 0, 3, 2, 5, 4]], 1 - box.mean(), 1), rtol=1e-6
    )


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_shares_of_mixup_are_of_a_beta_distribution(alpha: float) -> None:
    drawn = shares(Data(mixup=alpha), 4000)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(drawn.mean() - 0.5) < 4 * np.sqrt(variance / 4000)
    fourth = ((drawn - 0.5) ** 4).mean()
    assert abs(drawn.var() - variance) < 4 * np.sqrt((fourth - variance**2) / 4000)


def test_boxes_of_cutmix_lie_anywhere_and_are_cut_off() -> None:
    """E of a side: r less what is beyond the edges, r²/4, for r = √(1 − λ) with λ uniform."""
    drawn = 1 - shares(Data(cutmix=1.0), 4000)
    r = np.sqrt(1 - (np.arange(100_000) + 0.5) / 100_000)
    expected = ((r - r**2 / 4) ** 2).mean()
    assert abs(drawn.mean() - expected) < 4 * drawn.std() / np.sqrt(4000) + 0.01  # of whole pixels


def test_with_both_each_is_half_of_the_steps() -> None:
    """α so large that all of mixup's shares are 1/2."""
    drawn = shares(Data(mixup=1e6, cutmix=0.2), 2000)
    is_mixup = np.abs(drawn - 0.5) < 0.01
    assert abs(is_mixup.mean() - 0.5) < 4 * np.sqrt(0.25 / 2000) + 0.02


@pytest.fixture
def mixing(tiny: Config, tmp_path: Path) -> Config:
    (tmp_path / "mine.py").write_text(PATCHES)
    tiny.network.backbone = f"{tmp_path}/mine.py:patches"
    tiny.data.mixup, tiny.diversification.alpha = 0.8, 1.0
    return tiny


def test_the_loss_is_that_of_both_labels(mixing: Config) -> None:
    """GCE with the hardest negatives of each of them; metrics are those of the image's own."""
    steps, state = build(mixing)
    state = state.replace(step=jnp.int32(5))
    batch = batch_of(8)
    images, share = mixed(
        mixing.data, stream_key(mixing.seed, Stream.MIXING, 5), shown(batch), batch["mask"]
    )
    outputs: Any = build_network(mixing, CLASSES).apply(state.variables, images, train=False)
    scores, λ = np.asarray(outputs.scores, np.float64), np.asarray(share, np.float64)
    assert 0.01 < λ[0] < 0.99
    own = np.asarray(batch["label"])
    of_own, of_partner = (
        reference.gradient_boosting_cross_entropy(scores, labels, 2)
        for labels in (own, own.reshape(4, 2)[:, ::-1].ravel())
    )
    state, (loss, _) = steps.train(state, batch)
    np.testing.assert_allclose(loss, (λ * of_own + (1 - λ) * of_partner).mean(), rtol=1e-5)
    assert int(state.epoch_totals.top1) == (scores.argmax(-1) == own).sum()


def test_no_image_leaves_its_device(mixing: Config) -> None:
    mixing.data.cutmix = 1.0
    steps, state = build(mixing, devices=4)
    text = steps.train.lower(state, batch_of(8, devices=4)).compile().as_text()
    assert {each.kind for each in collectives(text)} == {"all-reduce"}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 7}, "data.mixup=0.8: must be 0 where batch_size is odd; it is 7"),
        ({"views": 3}, "data.mixup=0.8: must be 0 with data.views: features are not mixed"),
        ({"pairwise_confusion": 0.1}, "pairwise_confusion=0.1: must be 0 with mixed images"),
    ],
)
def test_what_cannot_be_mixed(mixing: Config, changed: dict, message: str) -> None:
    mixing.loss.gce_start = "never"
    mixing.network.frozen = "backbone"
    for name, value in changed.items():
        section = {"views": mixing.data, "batch_size": mixing}.get(name, mixing.loss)
        setattr(section, name, value)
    with pytest.raises(UserError, match=message):
        config_lib.validate(mixing)

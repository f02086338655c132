"""What a run says before it trains, and what it advises."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from networks import random_variables
from small_backbone import SMALL_BACKBONE

from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.data.prepare.contents import Contents
from fgr_jax.models.network import build_network
from fgr_jax.train.introduction import introduction


def a_config() -> Config:
    """One that gets no advice: maps of 8×8 cells, pretrained weights."""
    config = Config(batch_size=8, duration="10 steps", pretrained="weights.pth")
    config.data.crop = 128
    config.network.backbone = SMALL_BACKBONE
    return config


def introduced(config: Config, counts: tuple[int, ...] = (90, 10)) -> list[str]:
    names = [f"kind {index}" for index in range(len(counts))]
    contents = Contents(names, {"train": counts, "test": [5] * len(counts)})

    class Split(SimpleNamespace):
        def __len__(self) -> int:
            return sum(counts)

    train = Split(data_set="mine", class_names=names, contents=contents)
    sources: Any = SimpleNamespace(train=train, evaluated={"validation": [1] * 7, "test": [1] * 5})
    network = build_network(config, len(counts))
    variables = random_variables(network, config.data.crop, config.data.crop)
    calendar = Calendar.of(config, sum(counts))
    return introduction(config, calendar, sources, network, variables, "START", "WEIGHTS", 2)


def advice(lines: list[str]) -> list[str]:
    return [line.removeprefix("advice    ") for line in lines if line.startswith("advice")]


def test_everything_is_in_one_block() -> None:
    lines = introduced(a_config(), (9, 1))
    assert [line[:10] for line in lines] == [
        "data      ", "classes   ", "          ", "network   ", "block     ", "start     ",
        "weights   ", "training  ",
    ]  # fmt: skip
    text = "\n".join(lines)
    assert "mine: 10 training and 7 validation and 5 test images, 2 classes" in text
    assert "the largest is 'kind 0' (9 train and 5 test images)" in text
    assert "128×128 pixels give maps of 8×8 cells" in text
    assert "patches of 3×3 cells with 0.5, by a factor of 0.1" in text
    assert "10 steps of 8 images, on 2 × cpu" in text


def _weigh(config: Config) -> None:
    config.loss.logit_adjustment = 1.0


def _balance(config: Config) -> None:
    config.data.balance = 0.5


@pytest.mark.parametrize(
    ("counts", "change", "is_given"),
    [
        ((100, 11), None, False),
        ((100, 10), None, True),
        ((100, 0, 100), None, False),
        ((100, 10), _weigh, False),
        ((100, 10), _balance, False),
    ],
)
def test_classes_of_different_sizes(
    counts: tuple[int, ...], change: Callable[[Config], None] | None, is_given: bool
) -> None:
    config = a_config()
    if change:
        change(config)
    found = advice(introduced(config, counts))
    assert len(found) == is_given
    if is_given:
        assert "10 times" in found[0]
        assert "--config.loss.logit_adjustment=1" in found[0]


@pytest.mark.parametrize(
    ("pretrained", "start", "fade", "is_given"),
    [
        ("", "0 steps", "0 steps", True),
        ("weights.pth", "0 steps", "0 steps", False),
        ("", "0 steps", "auto", False),
        ("", "2 steps", "0 steps", False),
        ("", "never", "0 steps", False),
    ],
)
def test_gce_from_random_weights(pretrained: str, start: str, fade: str, is_given: bool) -> None:
    config = a_config()
    config.pretrained, config.loss.gce_start, config.loss.gce_fade = pretrained, start, fade
    found = advice(introduced(config, (9, 8)))
    assert len(found) == is_given
    assert not is_given or "--config.loss.gce_fade=auto" in found[0]


@pytest.mark.parametrize(
    ("crop", "fit", "patch_size", "p_patch", "alpha", "block", "is_given"),
    [
        (112, False, 3, 0.5, 0.1, "3×3 cells with 0.5", False),
        (96, False, 3, 0.5, 0.1, "3×3 cells with 0.5", True),
        (96, True, 3, 0.5, 0.1, "2×2 cells with 0.1", False),
        (96, False, 2, 0.1, 0.1, "2×2 cells with 0.1", False),
        (48, False, 2, 0.1, 0.1, "2×2 cells with 0.1", True),
        (48, True, 2, 0.1, 0.1, "off", False),
        (48, False, 3, 0.5, 1.0, "off", False),
    ],
)
def test_the_block_on_small_maps(
    crop: int,
    fit: bool,
    patch_size: int,
    p_patch: float,
    alpha: float,
    block: str,
    is_given: bool,
) -> None:
    config = a_config()
    config.data.crop = crop
    config.diversification.fit_to_maps = fit
    config.diversification.patch_size = patch_size
    config.diversification.p_patch, config.diversification.alpha = p_patch, alpha
    lines = introduced(config, (9, 8))
    (said,) = [line for line in lines if line.startswith("block ")]
    assert block in said
    assert len(advice(lines)) == is_given
    assert not is_given or "--config.diversification.fit_to_maps=True" in advice(lines)[0]

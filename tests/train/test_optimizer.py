"""Optimizers and schedules, against PyTorch's update rules written out in NumPy."""

import math
from fractions import Fraction

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import cam_network

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.models.backbones.convnext import ConvNeXt
from fgr_jax.models.network import Network, depths_of_params
from fgr_jax.train.optimizer import build_optimizer, learning_rate_schedule, momentum_sgd


def test_sgd_is_pytorchs_with_coupled_weight_decay() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=5)
    gradients = rng.normal(size=(12, 5))
    rates = [0.1 * 0.5 ** (step // 5) for step in range(12)]
    with jax.enable_x64(True):
        optimizer = momentum_sgd(
            lambda step: 0.1 * 0.5 ** (step // 5), momentum=0.9, weight_decay=0.01
        )
        params = {"bias": jnp.asarray(weights)}
        state = optimizer.init(params)
        for gradient in gradients:
            updates, state = optimizer.update({"bias": jnp.asarray(gradient)}, state, params)
            params = optax.apply_updates(params, updates)
    buffer = np.zeros(5)
    for gradient, rate in zip(gradients, rates, strict=True):
        buffer = 0.9 * buffer + gradient + 0.01 * weights
        weights = weights - rate * buffer
    np.testing.assert_allclose(params["bias"], weights, rtol=1e-12)


def test_the_papers_schedule_drops_every_50_epochs() -> None:
    schedule = learning_rate_schedule(Config(), epoch=Fraction(10), total_steps=1000)
    rates = [float(schedule(step)) for step in (0, 499, 500, 999)]
    np.testing.assert_allclose(rates, [1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-6)


@pytest.mark.parametrize("name", ["step", "cosine"])
def test_warm_up_is_linear_and_reaches_the_peak(name: str) -> None:
    config = Config()
    config.optimizer.schedule = name
    config.optimizer.warmup = "1 epoch"
    schedule = learning_rate_schedule(config, epoch=Fraction(10), total_steps=100)
    rates = [float(schedule(step)) for step in range(11)]
    np.testing.assert_allclose(rates, np.linspace(0, 1e-3, 11), atol=1e-9)


def test_cosine_ends_at_zero() -> None:
    config = Config()
    config.optimizer.schedule = "cosine"
    schedule = learning_rate_schedule(config, epoch=Fraction(10), total_steps=100)
    np.testing.assert_allclose(
        [float(schedule(step)) for step in (0, 50, 100)], [1e-3, 5e-4, 0], atol=1e-9
    )


def test_the_learning_rate_scales_with_the_batch_when_asked() -> None:
    config = Config(batch_size=64)
    assert float(learning_rate_schedule(config, epoch=Fraction(1), total_steps=9)(0)) == (
        pytest.approx(1e-3)
    )
    config.optimizer.scale_with_batch = True
    assert float(learning_rate_schedule(config, epoch=Fraction(1), total_steps=9)(0)) == (
        pytest.approx(4e-3)
    )


# Some parameters of a ResNet: shape, stages to the head, whether it is neither of a norm nor a bias.
PARAMETERS = {
    "backbone/conv1/kernel": ((2, 2, 3, 4), 5, True),
    "backbone/bn1/scale": ((4,), 5, False),
    "backbone/layer2_1/conv2/kernel": ((1, 1, 4, 2), 3, True),
    "backbone/layer4_0/bn2/bias": ((2,), 1, False),
    "classifier/kernel": ((1, 1, 2, 5), 0, True),
    "classifier/bias": ((5,), 0, False),
}
RECIPES = [
    {"nesterov": True},
    {"head_factor": 10.0, "decay_norms_and_biases": False},
    {"clip_norm": 0.5, "layer_decay": 0.6},
    {"name": "adamw"},
    {
        "name": "adamw",
        "head_factor": 3.0,
        "layer_decay": 0.7,
        "decay_norms_and_biases": False,
        "clip_norm": 1.0,
    },
]


@pytest.mark.parametrize("fields", RECIPES, ids=lambda fields: " ".join(fields))
def test_each_recipe_is_pytorchs_with_parameter_groups(fields: dict) -> None:
    """torch.optim.SGD and AdamW, and clip_grad_norm_, written out in float64."""
    section = config_lib.Optimizer(weight_decay=0.05, momentum=0.8, **fields)
    rates = [0.1 * 0.5**step for step in range(5)]
    rng = np.random.default_rng(0)
    weights = {path: rng.normal(size=shape) for path, (shape, *_) in PARAMETERS.items()}
    gradients = [
        {path: rng.normal(size=shape) for path, (shape, *_) in PARAMETERS.items()} for _ in rates
    ]
    with jax.enable_x64(True):
        network = cam_network(5, depth=18, width=1 / 16)
        config = Config(optimizer=section)
        config.data.crop = 32
        optimizer = build_optimizer(config, network, lambda step: 0.1 * 0.5**step)
        params = flax.traverse_util.unflatten_dict(weights, sep="/")
        params = jax.tree.map(jnp.asarray, params)
        state = optimizer.init(params)
        for each in gradients:
            tree = flax.traverse_util.unflatten_dict(each, sep="/")
            updates, state = optimizer.update(jax.tree.map(jnp.asarray, tree), state, params)
            params = optax.apply_updates(params, updates)
    first = {path: np.zeros_like(w) for path, w in weights.items()}
    second = {path: np.zeros_like(w) for path, w in weights.items()}
    for step, (rate, each) in enumerate(zip(rates, gradients, strict=True), start=1):
        norm = math.sqrt(sum((gradient**2).sum() for gradient in each.values()))
        scale = min(1.0, section.clip_norm / norm) if section.clip_norm else 1.0
        for path, (_, depth, is_kernel) in PARAMETERS.items():
            lr = rate * section.layer_decay**depth
            lr *= section.head_factor if path.startswith("classifier") else 1
            decay = 0.05 if is_kernel or section.decay_norms_and_biases else 0.0
            g, w = scale * each[path], weights[path]
            if section.name == "sgd":
                g = g + decay * w
                first[path] = 0.8 * first[path] + g
                change = g + 0.8 * first[path] if section.nesterov else first[path]
                weights[path] = w - lr * change
                continue
            first[path] = 0.9 * first[path] + 0.1 * g
            second[path] = 0.999 * second[path] + 0.001 * g**2
            mean, square = first[path] / (1 - 0.9**step), second[path] / (1 - 0.999**step)
            weights[path] = w - lr * decay * w - lr * mean / (np.sqrt(square) + 1e-8)
    ours = flax.traverse_util.flatten_dict(params, sep="/")
    for path, expected in weights.items():
        # optax keeps Adam's decays in float32.
        tolerance = 1e-12 if section.name == "sgd" else 1e-5
        np.testing.assert_allclose(ours[path], expected, rtol=tolerance, err_msg=path)


def test_the_default_is_the_papers_optimizer_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    params = {"classifier": {"bias": jnp.asarray(rng.normal(size=5), jnp.float32)}}
    ours = build_optimizer(Config(), cam_network(5), lambda _: jnp.float32(0.1))
    theirs = optax.chain(
        optax.add_decayed_weights(1e-4), optax.sgd(lambda _: jnp.float32(0.1), momentum=0.9)
    )
    one, other = (optimizer.init(params) for optimizer in (ours, theirs))
    for _ in range(3):
        gradient = jax.tree.map(lambda leaf: leaf + 0.3, params)
        updates, one = ours.update(gradient, one, params)
        expected, other = theirs.update(gradient, other, params)
        jax.tree.map(np.testing.assert_array_equal, (updates, one), (expected, other))
        params = optax.apply_updates(params, updates)


def test_stages_are_counted_from_the_head() -> None:
    """In a backbone without a prefix of the stage's name in that of each module."""
    backbone = ConvNeXt(depths=(1, 1, 2, 1), channels=(4, 4, 8, 8))
    depths = depths_of_params(Network(backbone, cam_network(3).classifier), 64)
    found = {(path.split("/")[1], depth) for path, depth in depths.items() if "backbone" in path}
    assert found == {
        ("stem_0", 6),
        ("stem_1", 6),
        ("stages_0_blocks_0", 5),
        ("stages_1_downsample_0", 4),
        ("stages_1_downsample_1", 4),
        ("stages_1_blocks_0", 4),
        ("stages_2_downsample_0", 3),
        ("stages_2_downsample_1", 3),
        ("stages_2_blocks_0", 3),
        ("stages_2_blocks_1", 3),
        ("stages_3_downsample_0", 2),
        ("stages_3_downsample_1", 2),
        ("stages_3_blocks_0", 2),
        ("head_norm", 1),
    }
    assert {depths["classifier/kernel"], depths["classifier/bias"]} == {0}


def test_nesterov_is_of_sgd() -> None:
    config = Config()
    config.data.name = "cub"
    config.optimizer.name, config.optimizer.nesterov = "adamw", True
    with pytest.raises(UserError, match=r"optimizer.nesterov=True: must be False where"):
        config_lib.validate(config)

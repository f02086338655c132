"""SGD and its schedule, against PyTorch's update rule written out in NumPy."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fgr_jax.config import Config
from fgr_jax.train.optimizer import learning_rate_schedule, momentum_sgd


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

"""The gradients of the float64 references of other systems, against central finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
from systems import isqrt_cov
from systems.layers import Floats, Gradients

STEP = 1e-5

Forward = Callable[[Floats, dict[str, Floats]], Floats]


def normal(*shape: int, seed: int = 0) -> Floats:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def numerical(function: Callable[[Floats], float], at: Floats) -> Floats:
    """The gradient of a function of an array by central differences, element by element."""
    gradient = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        moved = at.copy()
        moved[index] += STEP
        above = function(moved)
        moved[index] -= 2.0 * STEP
        gradient[index] = (above - function(moved)) / (2.0 * STEP)
    return gradient


def assert_gradients(
    forward: Forward,
    features: Floats,
    parameters: dict[str, Floats],
    gradients: Callable[[Floats], tuple[Floats, Gradients]],
) -> None:
    """Asserts that `gradients`, of a cotangent, are those of `forward`, for every parameter."""
    cotangent = normal(*forward(features, parameters).shape, seed=9)
    d_features, d_parameters = gradients(cotangent)
    assert d_parameters.keys() == parameters.keys()
    expected = numerical(lambda x: float((forward(x, parameters) * cotangent).sum()), features)
    np.testing.assert_allclose(d_features, expected, rtol=1e-6, atol=1e-8)
    for name, value in parameters.items():

        def moved(x: Floats, name: str = name) -> float:
            return float((forward(features, parameters | {name: x}) * cotangent).sum())

        np.testing.assert_allclose(
            d_parameters[name], numerical(moved, value), rtol=1e-6, atol=1e-8, err_msg=name
        )


RUNNING = {"mean": normal(3, seed=5), "variance": normal(3, seed=6) ** 2 + 0.5}


@pytest.mark.parametrize("running", [None, RUNNING], ids=["batch", "running"])
def test_isqrt_cov(running: dict[str, Floats] | None) -> None:
    features = normal(2, 2, 3, 4)
    parameters = {
        "conv_weight": normal(4, 3, seed=1),
        "scale": normal(3, seed=2) + 1.5,
        "bias": normal(3, seed=3) + 0.5,
        "linear_weight": normal(6, 2, seed=4),
        "linear_bias": normal(2, seed=5),
    }
    assert_gradients(
        lambda x, p: isqrt_cov.forward(x, p, running),
        features,
        parameters,
        lambda g: isqrt_cov.gradient(features, parameters, g, running),
    )


def test_the_iterated_square_root_approaches_the_exact_one() -> None:
    sigma = isqrt_cov.covariance(normal(50, 4))
    exact = isqrt_cov.exact_square_root(sigma)
    np.testing.assert_allclose(exact @ exact, sigma, atol=1e-12)
    errors = [np.abs(isqrt_cov.square_root(sigma, n) - exact).max() for n in (1, 3, 5, 12)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-12


def test_isqrt_cov_is_orderless_and_centered_and_of_degree_one() -> None:
    cells = normal(1, 2, 4, 3)
    vector = isqrt_cov.pooled(cells)
    shuffled = cells.reshape(8, 3)[np.random.default_rng(0).permutation(8)].reshape(cells.shape)
    np.testing.assert_allclose(isqrt_cov.pooled(shuffled), vector, atol=1e-12)
    np.testing.assert_allclose(isqrt_cov.pooled(cells + normal(3, seed=7)), vector, atol=1e-12)
    np.testing.assert_allclose(isqrt_cov.pooled(2.5 * cells), 2.5 * vector, atol=1e-12)

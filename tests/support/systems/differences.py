"""Central finite differences, against which the references' gradients are checked."""

from collections.abc import Callable

import numpy as np
from systems.layers import Floats, Gradients

STEP = 1e-5

Forward = Callable[[Floats, dict[str, Floats]], Floats]


def normal(*shape: int, seed: int = 0) -> Floats:
    """Returns standard normal numbers of a shape, the same for the same shape and seed."""
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def numerical(function: Callable[[Floats], float], at: Floats) -> Floats:
    """Returns the gradient of a function of an array by central differences, element by element."""
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

"""The gradients of the float64 references of other heads, against central finite differences."""

import numpy as np
import pytest
from systems import bcnn, deep_ten, dep, isqrt_cov
from systems.differences import assert_gradients, normal
from systems.layers import Floats

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


@pytest.mark.parametrize("running", [None, RUNNING], ids=["batch", "running"])
@pytest.mark.parametrize("normalized", [False, True])
def test_bcnn(normalized: bool, running: dict[str, Floats] | None) -> None:
    features = normal(2, 2, 3, 4)
    parameters = {
        "conv_weight": normal(4, 3, seed=1),
        "conv_bias": normal(3, seed=2),
        "linear_weight": normal(9, 2, seed=4),
        "linear_bias": normal(2, seed=5),
    }
    if normalized:
        parameters |= {"scale": normal(3, seed=2) + 1.5, "bias": normal(3, seed=3) + 2.0}
    assert_gradients(
        lambda x, p: bcnn.forward(x, p, running),
        features,
        parameters,
        lambda g: bcnn.gradient(features, parameters, g, running),
    )


def test_bcnn_is_orderless_and_of_norm_one() -> None:
    cells = normal(1, 2, 4, 3)
    vector = bcnn.pooled(cells)
    np.testing.assert_allclose(bcnn.pooled(cells[:, ::-1, ::-1]), vector, atol=1e-12)
    np.testing.assert_allclose((vector**2).sum(), 1.0, atol=1e-12)
    without = bcnn.pooled(cells, 0.0)
    np.testing.assert_allclose(bcnn.pooled(-2.5 * cells, 0.0), without, atol=1e-12)
    expected = np.sign(cells.reshape(8, 3).T @ cells.reshape(8, 3))
    np.testing.assert_array_equal(np.sign(vector.reshape(3, 3)), expected)


@pytest.mark.parametrize("running", [None, RUNNING], ids=["batch", "running"])
def test_deep_ten(running: dict[str, Floats] | None) -> None:
    features = normal(2, 2, 3, 4)
    parameters = {
        "conv_weight": normal(4, 3, seed=1),
        "conv_bias": normal(3, seed=2),
        "scale": normal(3, seed=2) + 1.5,
        "bias": normal(3, seed=3) + 0.5,
        "codewords": normal(4, 3, seed=6),
        "smoothing": normal(4, seed=7),
        "linear_weight": normal(12, 2, seed=4),
        "linear_bias": normal(2, seed=5),
    }
    assert_gradients(
        lambda x, p: deep_ten.forward(x, p, running),
        features,
        parameters,
        lambda g: deep_ten.gradient(features, parameters, g, running),
    )


def test_the_encoding_layer_keeps_its_invariances() -> None:
    cells, codewords, smoothing = normal(8, 3), normal(4, 3, seed=1), normal(4, seed=2)
    encoded = deep_ten.encode(cells, codewords, smoothing)
    shift, order = normal(3, seed=3), np.array([2, 0, 3, 1])
    for inputs, expected in (
        ((cells[::-1], codewords, smoothing), encoded),
        ((np.concatenate([cells, cells]), codewords, smoothing), 2.0 * encoded),
        ((cells + shift, codewords + shift, smoothing), encoded),
        ((2.5 * cells, 2.5 * codewords, smoothing / 2.5**2), 2.5 * encoded),
        ((cells, codewords[order], smoothing[order]), encoded[order]),
    ):
        np.testing.assert_allclose(deep_ten.encode(*inputs), expected, atol=1e-12)
    single = deep_ten.encode(cells, codewords[:1], smoothing[:1])
    np.testing.assert_allclose(single[0], cells.sum(axis=0) - 8 * codewords[0], atol=1e-12)


DEP_RUNNING = {
    "texture_mean": normal(4, seed=5),
    "texture_variance": normal(4, seed=6) ** 2 + 0.5,
    "pool_mean": normal(2, seed=5),
    "pool_variance": normal(2, seed=6) ** 2 + 0.5,
}


@pytest.mark.parametrize("running", [None, DEP_RUNNING], ids=["batch", "running"])
def test_dep(running: dict[str, Floats] | None) -> None:
    features = normal(3, 2, 2, 4)
    parameters = {
        "texture_scale": normal(4, seed=1) + 1.5,
        "texture_bias": normal(4, seed=2),
        "codewords": normal(2, 4, seed=3),
        "smoothing": normal(2, seed=4),
        "texture_weight": normal(8, 3, seed=5),
        "texture_linear_bias": normal(3, seed=6),
        "pool_weight": normal(4, 2, seed=7),
        "pool_linear_bias": normal(2, seed=8),
        "pool_scale": normal(2, seed=10),
        "pool_bias": normal(2, seed=11),
        "hidden_weight": normal(6, 3, seed=12),
        "hidden_bias": normal(3, seed=13),
        "linear_weight": normal(3, 2, seed=14),
        "linear_bias": normal(2, seed=15),
    }
    assert_gradients(
        lambda x, p: dep.forward(x, p, running),
        features,
        parameters,
        lambda g: dep.gradient(features, parameters, g, running),
    )

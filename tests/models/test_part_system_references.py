"""The float64 references of DFL-CNN and MAMC: gradients and properties."""

import numpy as np
import pytest
from systems import dfl_cnn, dfl_filters, mamc
from systems.differences import assert_gradients, normal, numerical
from systems.layers import Floats, Gradients

DFL = {
    "conv_weight": normal(3, 6, seed=1),
    "conv_bias": normal(6, seed=2),
    "part_weight": normal(6, 2, seed=3),
    "part_bias": normal(2, seed=4),
    "global_weight": normal(4, 2, seed=5),
    "global_bias": normal(2, seed=6),
}


@pytest.mark.parametrize("normalized", [False, True])
def test_dfl_cnn(normalized: bool) -> None:
    middle, last = normal(3, 2, 3, 3), normal(3, 2, 1, 4)
    parameters = dict(DFL)
    if normalized:
        parameters |= {"scale": normal(6, seed=7) + 1.5, "bias": normal(6, seed=8) + 0.5}

    def of_middle(cotangent: Floats) -> tuple[Floats, Gradients]:
        d_middle, _, gradients = dfl_cnn.gradient(middle, last, parameters, cotangent)
        return d_middle, gradients

    def of_last(cotangent: Floats) -> tuple[Floats, Gradients]:
        return dfl_cnn.gradient(middle, last, parameters, cotangent)[1], {}

    assert_gradients(lambda x, p: dfl_cnn.forward(x, last, p), middle, parameters, of_middle)
    assert_gradients(lambda x, p: dfl_cnn.forward(middle, x, parameters | p), last, {}, of_last)


def test_the_loss_of_dfl_cnn() -> None:
    labels = np.array([1, 0, 1])
    streams = dfl_cnn.streams(normal(3, 2, 3, 3), normal(3, 2, 1, 4), DFL)
    for i, gradient in enumerate(dfl_cnn.loss_gradient(streams, labels)):

        def moved(x: Floats, i: int = i) -> float:
            first, second, third = (x if j == i else scores for j, scores in enumerate(streams))
            return dfl_cnn.loss((first, second, third), labels)

        np.testing.assert_allclose(gradient, numerical(moved, streams[i]), atol=1e-9)


def test_the_filters_of_dfl_cnn_start_at_the_centers_of_planted_clusters() -> None:
    directions = np.eye(4)  # class 0 has the first two, class 1 the others
    features = 0.01 * np.abs(normal(6, 4, 4, 4))
    labels = np.arange(6) % 2
    for b, label in enumerate(labels):
        features[b, 0, 1] = (5.0 + b) * directions[2 * label]
        features[b, 2, 3] = (4.0 + b) * directions[2 * label + 1]
    assert dfl_filters.peaks(dfl_filters.energies(features)[0], 1, 0.5) == [(0, 1), (2, 3)]
    starts = np.stack([features[[0, 0], [0, 2], [1, 3]], features[[1, 1], [0, 2], [1, 3]]])
    filters = dfl_filters.initial_filters(features, labels, starts, fraction=0.5)
    np.testing.assert_allclose(filters, directions, atol=1e-12)


def test_k_means_ends_where_no_center_moves() -> None:
    points, starts = normal(30, 2), normal(3, 2)
    centers = dfl_filters.k_means(points, starts)
    np.testing.assert_array_equal(dfl_filters.k_means(points, centers, 1), centers)
    covariance = np.cov(points.T)
    whitened = dfl_filters.whiten(centers, points.mean(axis=0), covariance)
    np.testing.assert_allclose(whitened @ covariance + points.mean(axis=0), centers, atol=1e-12)
    sums = [dfl_filters.within_cluster_sum(points, c) for c in (centers, starts)]
    assert sums[0] < sums[1]


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_osme(pooled: bool, biased: bool) -> None:
    features = normal(2, 2, 2, 3) + 0.5
    parameters = {
        "squeeze_weight": normal(2, 3, 2, seed=1),
        "excite_weight": normal(2, 2, 3, seed=2),
        "attention_weight": normal(2, 3 if pooled else 12, 2, seed=3),
        "linear_weight": normal(4, 2, seed=4),
        "linear_bias": normal(2, seed=5),
    }
    if biased:
        parameters |= {
            "squeeze_bias": normal(2, 2, seed=6),
            "excite_bias": normal(2, 3, seed=7),
            "attention_bias": normal(2, 2, seed=8),
        }
    assert_gradients(
        lambda x, p: mamc.forward(x, p, pooled),
        features,
        parameters,
        lambda g: mamc.gradient(features, parameters, g, pooled),
    )


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("anchor", [False, True])
def test_mamc(normalized: bool, anchor: bool) -> None:
    attended, labels = normal(6, 2, 3), np.array([0, 0, 1, 1, 2, 2])

    def loss(x: Floats) -> float:
        return mamc.constraint_loss(x, labels, 3.0, normalized, anchor)

    np.testing.assert_allclose(
        mamc.constraint_loss_gradient(attended, labels, 3.0, normalized, anchor),
        numerical(loss, attended),
        atol=1e-8,
    )
    order = np.array([4, 0, 3, 5, 2, 1])
    moved = mamc.constraint_loss(attended[order][:, ::-1], labels[order], 3.0, normalized, anchor)
    np.testing.assert_allclose(moved, loss(attended), rtol=1e-12)


def test_the_sets_of_mamc_have_their_sizes() -> None:
    # Of 6 images in 3 pairs with 2 attentions: 1 image of the anchor's class, 4 of others.
    losses = mamc.group_losses(np.ones((6, 2, 3)), np.array([0, 0, 1, 1, 2, 2]))
    expected = [12 * 1 * np.log1p(4 + 2 + 4), 12 * 4 * np.log1p(4), 12 * 2 * np.log1p(4)]
    np.testing.assert_allclose(losses, expected, rtol=1e-12)

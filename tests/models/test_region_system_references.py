"""The float64 references of NTS-Net and TASN: gradients, geometry and properties."""

import numpy as np
import pytest
from systems import nts_net, nts_regions, tasn
from systems.differences import assert_gradients, normal, numerical
from systems.layers import Floats, Gradients


def test_the_anchors_of_nts_net_are_those_of_its_public_code() -> None:
    anchors = nts_regions.anchors(448, 448)
    assert len(anchors) == 6 * 14**2 + 6 * 7**2 + 9 * 4**2
    sizes = anchors[:, 2:] - anchors[:, :2]
    areas = [
        (size * factor) ** 2 for _, size, factors in nts_regions.SETTINGS for factor in factors
    ]
    counts = [3 * 14**2] * 2 + [3 * 7**2] * 2 + [3 * 4**2] * 3
    np.testing.assert_allclose(sizes.prod(axis=1), np.repeat(areas, counts), rtol=1e-12)
    centers = (anchors[:, 2:] + anchors[:, :2]) / 2
    np.testing.assert_allclose(
        centers[[0, 1, 14, 1176, -1]],
        np.array([[16, 16], [16, 48], [48, 16], [32, 32], [448, 448]]),
        atol=1e-9,
    )
    boxes = nts_regions.padded_boxes(448, 448)
    assert boxes.min() >= 0
    assert boxes.max() <= 448 + 2 * nts_regions.PADDING
    # Single precision, which the code computes with, gives the same whole pixels.
    single = np.floor(anchors.astype(np.float32) + np.float32(nts_regions.PADDING))
    np.testing.assert_array_equal(single, boxes)


def test_suppression_keeps_the_best_boxes_apart() -> None:
    boxes, scores = nts_regions.padded_boxes(448, 448), normal(1614)
    scores[700] = 9.0
    kept = nts_regions.suppress(boxes, scores, 6)
    assert len(kept) == 6
    assert kept[0] == 700
    assert list(scores[kept]) == sorted(scores[kept], reverse=True)
    for a in kept:
        for b in kept:
            assert a == b or nts_regions.overlap(boxes[a], boxes[b]) < 0.25
    assert nts_regions.suppress(boxes, np.exp(scores), 6) == kept
    pair = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [0, 0, 2, 2]])
    assert nts_regions.overlap(pair[0], pair[1]) == 1 / 3
    assert nts_regions.suppress(pair, np.array([1.0, 2.0, 3.0]), 3) == [2]
    assert nts_regions.suppress(pair, np.array([1.0, 2.0, 3.0]), 3, 0.4) == [2, 1]


def test_crops_of_nts_net() -> None:
    image = normal(9, 8, 2)
    same = nts_regions.crop(image, np.array([3, 4, 8, 9]), size=5, padding=2)
    np.testing.assert_array_equal(same, image[1:6, 2:7])
    ramp = np.broadcast_to(np.arange(9.0)[:, None, None], (9, 8, 1))
    stretched = nts_regions.crop(ramp, np.array([3, 2, 8, 7]), size=9, padding=2)
    np.testing.assert_allclose(stretched[:, 4, 0], np.linspace(1.0, 5.0, 9), atol=1e-12)
    corner = nts_regions.crop(image, np.array([0, 0, 5, 5]), size=5, padding=2)
    np.testing.assert_array_equal(corner[:2], 0.0)
    np.testing.assert_array_equal(corner[2:, 2:], image[:3, :3])


def test_the_convolution_of_the_navigator_begins_at_the_first_cell() -> None:
    weight = np.zeros((3, 3, 2, 2))
    weight[1, 1] = np.eye(2)
    for side in (4, 5):
        inputs = normal(1, side, side, 2)
        for stride in (1, 2):
            outputs = nts_net.convolution(inputs, weight, np.zeros(2), stride)
            np.testing.assert_array_equal(outputs, inputs[:, ::stride, ::stride])


def test_the_navigator() -> None:
    features = normal(2, 5, 4, 2)
    parameters = {"down1_weight": normal(3, 3, 2, 3, seed=1), "down1_bias": normal(3, seed=1) + 1.0}
    for n in (2, 3):
        parameters[f"down{n}_weight"] = normal(3, 3, 3, 3, seed=n)
        parameters[f"down{n}_bias"] = normal(3, seed=n) + 1.0
    for n, anchors in ((1, 2), (2, 2), (3, 3)):
        parameters[f"score{n}_weight"] = normal(3, anchors, seed=n)
        parameters[f"score{n}_bias"] = normal(anchors, seed=n)
    scores = nts_net.navigator(features, parameters)
    assert scores.shape == (2, 2 * 5 * 4 + 2 * 3 * 2 + 3 * 2 * 1)
    first = np.maximum(
        nts_net.convolution(features, parameters["down1_weight"], parameters["down1_bias"], 1), 0.0
    )
    expected = first[:, 3, 2] @ parameters["score1_weight"] + parameters["score1_bias"]
    np.testing.assert_allclose(scores[:, [14, 34]], expected, atol=1e-12)
    assert_gradients(
        nts_net.navigator,
        features,
        parameters,
        lambda g: nts_net.navigator_gradient(features, parameters, g),
    )


def test_the_scrutinizer() -> None:
    crops, image = normal(2, 3, 2), normal(2, 2)
    parameters = {"scrutinizer_weight": normal(6, 3), "scrutinizer_bias": normal(3)}

    def of_crops(cotangent: Floats) -> tuple[Floats, Gradients]:
        d_crops, _, gradients = nts_net.scrutinizer_gradient(crops, image, parameters, cotangent, 2)
        return d_crops, gradients

    def of_image(cotangent: Floats) -> tuple[Floats, Gradients]:
        return nts_net.scrutinizer_gradient(crops, image, parameters, cotangent, 2)[1], {}

    assert_gradients(lambda x, p: nts_net.scrutinizer(x, image, p, 2), crops, parameters, of_crops)
    assert_gradients(
        lambda x, p: nts_net.scrutinizer(crops, x, parameters | p, 2), image, {}, of_image
    )


@pytest.mark.parametrize("added", [False, True])
def test_the_losses_of_nts_net(added: bool) -> None:
    image, joined = normal(2, 3), normal(2, 3, seed=1)
    crops, kept = normal(2, 4, 3), normal(2, 4)
    labels = np.array([2, 0])

    def total(image: Floats, joined: Floats, crops: Floats, kept: Floats) -> float:
        return sum(nts_net.losses(image, joined, crops, kept, labels, added).values())

    d_image, d_joined, d_crops, d_kept = nts_net.losses_gradient(
        image, joined, crops, kept, labels, added
    )
    for gradient, expected in (
        (d_image, numerical(lambda x: total(x, joined, crops, kept), image)),
        (d_joined, numerical(lambda x: total(image, x, crops, kept), joined)),
        (d_crops, numerical(lambda x: total(image, joined, x, kept), crops)),
        (d_kept, numerical(lambda x: total(image, joined, crops, x), kept)),
    ):
        np.testing.assert_allclose(gradient, expected, atol=1e-9)
    np.testing.assert_allclose(d_kept.sum(axis=1), 0.0, atol=1e-12)


def test_the_ranking_loss_is_zero_in_order_with_the_margin() -> None:
    losses = np.array([[0.1, 0.5, 0.5, 2.0]])
    ordered = np.array([[3.0, 1.5, 1.0, 0.0]])
    assert nts_net.ranking_loss(ordered, losses) == 0.0
    assert nts_net.ranking_loss(ordered / 2, losses) == pytest.approx(0.25 + 0.25 + 0.5)


@pytest.mark.parametrize("scale", [1.0, tasn.CODE_SCALE])
def test_trilinear_attention(scale: float) -> None:
    features = 0.5 * normal(2, 2, 3, 4)
    maps = tasn.trilinear_attention(features, scale)
    assert np.all(maps <= features.max(axis=-1, keepdims=True))
    assert np.all(maps >= features.min(axis=-1, keepdims=True))
    order = np.array([2, 0, 3, 1])
    permuted = tasn.trilinear_attention(features[..., order], scale)
    np.testing.assert_allclose(permuted, maps[..., order], atol=1e-12)
    assert_gradients(
        lambda x, _: tasn.trilinear_attention(x, scale),
        features,
        {},
        lambda g: (tasn.trilinear_attention_gradient(features, g, scale), {}),
    )


def test_sampling_places_follow_the_marginals() -> None:
    uniform = np.full(8, 1 / 8)
    np.testing.assert_allclose(tasn.places(uniform, 8), np.arange(8), atol=1e-12)
    np.testing.assert_allclose(tasn.places(uniform, 4), [0.5, 2.5, 4.5, 6.5], atol=1e-12)
    rows, columns = tasn.marginals(np.array([[1.0, 3.0], [2.0, 0.0]]))
    np.testing.assert_allclose(rows, [0.6, 0.4])
    np.testing.assert_allclose(columns, [0.4, 0.6])
    marginal = np.array([0.1, 0.1, 0.6, 0.2])
    spots = tasn.places(marginal, 20)
    assert np.all(np.diff(spots) > 0)
    assert [int(((spots > i - 0.5) & (spots < i + 0.5)).sum()) for i in range(4)] == [2, 2, 12, 4]
    np.testing.assert_allclose(tasn.places(marginal[::-1], 20), 3 - spots[::-1], atol=1e-12)
    image = normal(8, 8, 2)
    np.testing.assert_allclose(
        tasn.sample(image, np.arange(8.0), tasn.places(uniform, 8)), image, atol=1e-12
    )


def test_the_limited_density_of_the_public_code() -> None:
    peaked = np.full(16, 0.01)
    peaked[5] = 0.85
    rows, columns = tasn.limited(peaked, np.full(16, 1 / 16), 8)
    np.testing.assert_allclose([rows.sum(), columns.sum()], 8.0, rtol=1e-12)
    assert rows.max() < 4 * 8 / 16
    spots = tasn.code_places(rows, 8)
    assert np.all(np.diff(spots) > 0)
    assert spots[-1] < 15


@pytest.mark.parametrize("fixed", [False, True])
def test_the_losses_of_tasn(fixed: bool) -> None:
    scores = [normal(3, 4, seed=n) for n in range(3)]
    labels = np.array([1, 3, 0])
    gradients = tasn.loss_gradient(scores[0], scores[1], scores[2], labels, fixed_teacher=fixed)
    for i, gradient in enumerate(gradients):

        def moved(x: Floats, i: int = i) -> float:
            changed = [x if j == i else value for j, value in enumerate(scores)]
            total = tasn.loss(changed[0], changed[1], changed[2], labels)
            if fixed:  # the teacher's share is taken out again
                total -= float(2.0 * tasn.distillation(changed[2], changed[1]).mean())
                total += float(2.0 * tasn.distillation(changed[2], scores[1]).mean())
            return total

        np.testing.assert_allclose(gradient, numerical(moved, scores[i]), atol=1e-9)
    same = tasn.distillation(scores[0] + 3.0, scores[0])
    assert np.all(same < tasn.distillation(scores[1], scores[0]))

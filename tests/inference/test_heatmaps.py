"""Maps laid over images: a map lights up at the receptive fields of its cells."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import cam_network, random_variables

from fgr_jax.config import Data
from fgr_jax.data.images import Canvas
from fgr_jax.inference.heatmaps import at_pixels, over_center_crop, overlay
from fgr_jax.models.backbones.convnext import ConvNeXt
from fgr_jax.models.backbones.interface import Backbone
from fgr_jax.models.backbones.vit import ViT


def square(size: int, crop: int) -> Canvas:
    """The canvas of an image that is resized to a square, whatever its shape."""
    return Canvas.of(Data(resize=size, crop=crop), 1, 2)


@pytest.mark.parametrize(("last_stride", "stride"), [(2, 32), (1, 16)])
def test_the_receptive_field_of_a_cell_is_centered_at_stride_times_its_index(
    last_stride: int, stride: int
) -> None:
    """By the network's own gradient: the centroid of what a cell depends on."""
    network = cam_network(3, depth=18, width=0.125, last_stride=last_stride)
    assert network.stride == stride
    images = np.random.default_rng(1).normal(size=(2, 320, 320, 3)).astype(np.float32)
    variables = random_variables(network, 320, 320)

    @jax.jit
    @jax.grad
    def gradient_of(images: jax.Array, row: int, column: int) -> jax.Array:
        outputs: Any = network.apply(variables, images, train=False)
        return (outputs.maps[:, row, column] ** 2).sum()

    for row, column in ((160 // stride, 160 // stride), (128 // stride, 192 // stride)):
        gradient = np.asarray(gradient_of(images, row, column))
        weight = (gradient**2).sum((0, 3))
        pixels = np.arange(320)
        center = (weight.sum(1) @ pixels, weight.sum(0) @ pixels) / weight.sum()
        assert center == pytest.approx((stride * row, stride * column), abs=6)


@pytest.mark.parametrize(
    ("backbone", "stage"),
    [
        (ConvNeXt(depths=(0, 0, 0, 0), channels=(8, 8, 8, 8)), "stages_3"),
        (ViT(patch_size=14, depth=0, heads=1, channels=8), "embedding"),
    ],
)
def test_cells_that_are_patches_are_centered_in_them(backbone: Backbone, stage: str) -> None:
    """Without blocks, of 7×7 cells or of all, a cell depends on its patch alone."""
    images = np.random.default_rng(0).normal(size=(1, 130, 130, 3)).astype(np.float32)

    @jax.jit
    def gradient_of(images: jax.Array) -> jax.Array:
        variables = backbone.init(jax.random.key(0), images, train=False)

        def square_of_a_cell(images: jax.Array) -> jax.Array:
            _, state = backbone.apply(variables, images, train=False, mutable=["intermediates"])
            cells = jax.tree.leaves(state["intermediates"][stage])[0]
            return (cells[:, 2, 1] ** 2).sum()

        return jax.grad(square_of_a_cell)(images)

    pixels = np.argwhere(np.any(np.asarray(gradient_of(images)) != 0, axis=(0, 3)))
    center = (pixels.min(0) + pixels.max(0)) / 2
    assert center.tolist() == [backbone.origin + backbone.stride * index for index in (2, 1)]
    activation = np.zeros((4, 4), np.float32)
    activation[2, 1] = 1
    heat = at_pixels(activation, 130, backbone.stride, backbone.origin)
    hottest = np.unravel_index(heat.argmax(), heat.shape)
    assert np.abs(np.subtract(hottest, center)).tolist() == [0.5, 0.5]  # between two pixels


def test_at_a_cells_center_the_heat_is_the_cells() -> None:
    activation = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    heat = at_pixels(activation, 144, 32)
    assert heat.shape == (144, 144)
    np.testing.assert_allclose(heat[::32, ::32], activation, rtol=1e-6)
    np.testing.assert_allclose(heat[16, 32], activation[:2, 1].mean(), rtol=1e-5)
    np.testing.assert_allclose(heat[140, 0], activation[4, 0], rtol=1e-6)  # beyond the last cell


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_a_hot_spot_lights_up_at_its_place_in_an_image_of_any_shape(
    data: st.DataObject, seed: int
) -> None:
    height, width = (data.draw(st.integers(60, 300)) for _ in range(2))
    resize, crop = 128, 112
    top, left = (data.draw(st.integers(0, resize - crop)) for _ in range(2))
    y, x = (data.draw(st.integers(20, crop - 21)) for _ in range(2))
    rows, columns = np.mgrid[0:crop, 0:crop]
    heat = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 50.0)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    placed = square(resize, crop), (top, left)
    hot, cold = overlay(image, heat, *placed), overlay(image, 0 * heat, *placed)
    assert hot.shape == image.shape
    change = np.abs(hot.astype(float) - cold).sum(-1)
    centroid = np.argwhere(change > 0).mean(0)
    expected = (
        (y + top + 0.5) * height / resize - 0.5,
        (x + left + 0.5) * width / resize - 0.5,
    )
    assert centroid == pytest.approx(expected, abs=1.5 * max(height, width) / resize)


@pytest.mark.parametrize(
    ("method", "size", "inside"),
    [
        ("squash", 64, np.s_[8:56, 16:112]),
        ("crop", 64, np.s_[8:56, 40:88]),  # the middle square of 48 pixels
        ("pad", 128, np.s_[:, 16:112]),  # of the square of 128 pixels, 96
    ],
)
def test_the_crop_is_colored_and_the_rest_is_gray(method: str, size: int, inside: Any) -> None:
    image = np.zeros((64, 128, 3), np.uint8) + np.asarray([200, 40, 40], np.uint8)
    canvas = Canvas.of(Data(resize=size, crop=size * 3 // 4, resize_method=method), 64, 128)
    overlaid = over_center_crop(image, np.ones((2, 2)), canvas, 16)
    is_gray = (overlaid == overlaid[..., :1]).all(-1)
    expected = np.ones((64, 128), bool)
    expected[inside] = False
    np.testing.assert_array_equal(is_gray, expected)


@pytest.mark.parametrize(("method", "crop"), [("crop", 56), ("squash", 28)])
def test_an_image_of_so_few_pixels_that_none_is_centered_in_the_crop(
    method: str, crop: int
) -> None:
    canvas = Canvas.of(Data(resize=64, crop=crop, resize_method=method), 1, 2)
    image = np.full((1, 2, 3), 100, np.uint8)
    np.testing.assert_array_equal(over_center_crop(image, np.ones((2, 2)), canvas, 16), image // 2)


def test_a_map_without_anything_positive_stays_cold() -> None:
    image = np.full((40, 40, 3), 90, np.uint8)
    cold = overlay(image, np.zeros((32, 32)), square(40, 32), (4, 4))
    negative = overlay(image, np.full((32, 32), -3.0), square(40, 32), (4, 4))
    np.testing.assert_array_equal(negative, cold)
    # Beside something positive, too: warm on the right, cold on the left.
    heat = np.where(np.arange(32) < 16, -3.0, 1.0) * np.ones((32, 1))
    mixed = overlay(image, heat, square(40, 32), (4, 4))
    np.testing.assert_array_equal(mixed[:, :19], cold[:, :19])
    assert (mixed[8:32, 22:34] != cold[8:32, 22:34]).any(-1).all()


def test_the_scores_are_the_maps_mean() -> None:
    network = cam_network(3, depth=18, width=0.125)
    images = np.ones((1, 64, 64, 3), np.float32)
    variables = random_variables(network, 64, 64)
    outputs: Any = jax.jit(functools.partial(network.apply, train=False))(variables, images)
    np.testing.assert_allclose(outputs.scores, np.mean(outputs.maps, (1, 2)), rtol=1e-5)

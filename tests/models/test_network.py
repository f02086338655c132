"""The network: parameter count, shapes, named stages, precision."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import cam_network, random_variables, shapes_of
from small_backbone import SMALL_BACKBONE
from small_backbones import Small, small_network

from fgr_jax import class_scores
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.models.backbones.resnet import DEPTHS
from fgr_jax.models.heads.dfl_cnn import DflCnnHead
from fgr_jax.models.network import (
    Network,
    build_network,
    forward,
    frozen_output,
    frozen_output_shapes,
    output_shapes,
    parameter_count,
    trained_part,
)


def abstract_variables(network: Network) -> dict:
    return shapes_of(network, 64, 64)


@functools.partial(jax.jit, static_argnums=0)
def outputs_of(network: Network, variables: Any, images: jax.Array) -> Any:
    return network.apply(variables, images, train=False)


def some_images(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_the_papers_parameter_count() -> None:
    variables = abstract_variables(cam_network(200))
    assert parameter_count(variables["params"]) == 23_917_832


@pytest.mark.parametrize(
    ("depth", "count"),  # torchvision's, less its fully connected layer of 1000 classes
    [
        (18, 11_689_512 - 513_000),
        (34, 21_797_672 - 513_000),
        (50, 25_557_032 - 2_049_000),
        (101, 44_549_160 - 2_049_000),
        (152, 60_192_808 - 2_049_000),
    ],
)
def test_backbones_have_torchvisions_parameter_counts(depth: int, count: int) -> None:
    variables = abstract_variables(cam_network(7, depth=depth))
    assert parameter_count(variables["params"]["backbone"]) == count


@pytest.mark.parametrize("last_stride", [1, 2])
@pytest.mark.parametrize("pixels", [32, 97, 112, 224, 225, 448])
def test_a_cell_of_the_maps_is_a_stride_of_pixels(pixels: int, last_stride: int) -> None:
    network = cam_network(3, depth=18, width=0.125, last_stride=last_stride)
    variables = abstract_variables(network)
    images = jax.ShapeDtypeStruct((2, pixels, pixels + 32, 3), jnp.float32)
    outputs = jax.eval_shape(functools.partial(outputs_of, network), variables, images)
    rows, columns = (math.ceil(each / network.stride) for each in (pixels, pixels + 32))
    assert outputs.maps.shape == (2, rows, columns, 3)


def test_at_448_the_maps_are_14_by_14() -> None:
    network = cam_network(200)
    maps = output_shapes(network, abstract_variables(network), 448).maps
    assert maps is not None
    assert maps.shape == (1, 14, 14, 200)


@pytest.mark.parametrize("depth", DEPTHS)
def test_stage_outputs_can_be_had_by_name(depth: int) -> None:
    network = cam_network(3, depth=depth, width=0.25)
    variables = abstract_variables(network)
    _, state = jax.eval_shape(
        lambda v: network.apply(
            v, jnp.zeros((1, 64, 96, 3)), train=False, mutable=["intermediates"]
        ),
        variables,
    )
    stages = state["intermediates"]["backbone"]
    expansion = 4 if DEPTHS[depth][1] else 1
    shapes = {name: outputs[0].shape for name, outputs in stages.items()}
    assert shapes == {
        "stem": (1, 16, 24, 16),
        "layer1": (1, 16, 24, 16 * expansion),
        "layer2": (1, 8, 12, 32 * expansion),
        "layer3": (1, 4, 6, 64 * expansion),
        "layer4": (1, 2, 3, 128 * expansion),
    }


def test_padding_is_symmetric() -> None:
    """The mirrored image has the mirrored features, which (0, 1) padding would shift."""
    network = cam_network(3, depth=18, width=0.125)
    image = some_images(1, 65, 65, 3)
    variables = random_variables(network, *image.shape[1:3])

    def mirror_kernels(path: tuple, leaf: jax.Array) -> Any:
        return np.asarray(leaf)[:, ::-1] if path[-1].key == "kernel" else leaf

    mirrored = jax.tree_util.tree_map_with_path(mirror_kernels, variables)
    maps = outputs_of(network, variables, image).maps
    again = np.asarray(outputs_of(network, mirrored, image[:, :, ::-1]).maps)
    np.testing.assert_allclose(again[:, :, ::-1], maps, rtol=1e-4, atol=1e-5)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32() -> None:
    network = cam_network(3, depth=18, width=0.25, dtype=jnp.bfloat16)
    images = some_images(2, 64, 64, 3)
    variables = random_variables(network, *images.shape[1:3])

    def trained(network: Network) -> Any:
        mutable = ["batch_stats", "intermediates"]
        return jax.jit(functools.partial(network.apply, train=True, mutable=mutable))(
            variables, images
        )

    outputs, state = trained(network)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state["batch_stats"])} == {
        jnp.dtype(jnp.float32)
    }
    assert state["intermediates"]["backbone"]["layer4"][0].dtype == jnp.bfloat16
    assert {outputs.maps.dtype, outputs.scores.dtype} == {jnp.dtype(jnp.float32)}
    exact = np.asarray(trained(cam_network(3, depth=18, width=0.25))[0].scores)
    error = np.linalg.norm(outputs.scores - exact)
    assert 0 < error / np.linalg.norm(exact) < 0.05


def test_the_head_adds_one_1x1_convolution_and_scores_are_its_average() -> None:
    network = cam_network(5, depth=18, width=0.25)
    images = some_images(2, 64, 64, 3)
    variables = random_variables(network, *images.shape[1:3])
    apply = functools.partial(network.apply, train=False, mutable=["intermediates"])
    outputs, state = jax.jit(apply)(variables, images)
    features = np.asarray(state["intermediates"]["backbone"]["layer4"][0], np.float64)
    head = variables["params"]["classifier"]
    scores = features.mean((1, 2)) @ np.asarray(head["kernel"])[0, 0] + np.asarray(head["bias"])
    np.testing.assert_allclose(outputs.scores, scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(outputs.scores, class_scores(outputs.maps))
    np.testing.assert_allclose(outputs.features, features.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_pooled_features_give_the_same_scores_and_coarser_maps() -> None:
    plain = cam_network(3, depth=18, width=0.125)
    pooled = plain.clone(pool=2)
    images = some_images(2, 128, 192, 3)
    variables = random_variables(plain, *images.shape[1:3])
    ours, full = (outputs_of(network, variables, images) for network in (pooled, plain))
    squares = np.asarray(full.maps, np.float64).reshape(2, 2, 2, 3, 2, 3).mean((2, 4))
    np.testing.assert_allclose(ours.maps, squares, atol=1e-5)
    np.testing.assert_allclose(ours.scores, full.scores, atol=1e-5)
    # The center of the first square of 2 × 2 cells of 32 pixels.
    assert (pooled.stride, pooled.origin) == (64, plain.origin + 16)
    with pytest.raises(UserError, match=r"pool=4: must divide .* which have 4×6 cells"):
        outputs_of(plain.clone(pool=4), variables, images)


def some_pixels(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_a_frozen_backbone_is_pooled_before_its_features_are_kept() -> None:
    network = small_network(3).clone(pool=2, frozen="backbone")
    images = jax.device_put(some_pixels(2, 16, 16, 3))
    variables = random_variables(network, 16, 16)
    features = frozen_output(network, variables, images)
    assert features.shape == (2, 4, 4, 8)
    after: Any = network.apply(variables, features, train=False, start="backbone")
    np.testing.assert_array_equal(after.scores, forward(network, variables, images).scores)


@pytest.mark.parametrize("frozen", ["", "one", "two", "three", "backbone"])
def test_a_head_may_take_the_stage_before_the_last(frozen: str) -> None:
    """From the images and from the output of a frozen part; if all is frozen, the last one."""
    head = DflCnnHead(3, filters=2)
    network = Network(Small(frozen="" if frozen == "backbone" else frozen), head, frozen=frozen)
    images = jax.device_put(some_pixels(2, 16, 16, 3))
    normalized = network.normalize(images)
    variables = random_variables(network, 16, 16)
    outputs, sown = network.apply(variables, normalized, train=False, mutable=["intermediates"])
    stages = {name: value[0] for name, value in sown["intermediates"]["backbone"].items()}
    earlier = stages["three" if frozen in ("three", "backbone") else "two"]
    own = {"params": variables["params"]["classifier"]}
    expected: Any = head.apply(own, stages["three"], train=False, earlier=earlier)
    np.testing.assert_array_equal(outputs.scores, expected.scores)
    if frozen:
        kept = frozen_output(network, variables, images)
        after: Any = network.apply(variables, kept, train=False, start=frozen)
        np.testing.assert_allclose(after.scores, expected.scores, rtol=1e-5)
    trained = set(trained_part(network, variables["params"], 16).get("backbone", {}))
    first = ["", "one", "two", "three", "backbone"].index(frozen)
    assert {name.partition("_")[0] for name in trained} == set(("one", "two", "three")[first:])


def test_a_backbone_without_stages_has_none_before_the_last() -> None:
    config = Config()
    config.network.backbone, config.network.head = SMALL_BACKBONE, "dfl_cnn"
    with pytest.raises(UserError, match=r"^--config\.network\.head=dfl_cnn: needs .* no stages"):
        build_network(config, 3)


class Counting(nn.Module):
    """A backbone that counts its calls; with an array it has no hash."""

    weights: Any
    stride: int = 1

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        CALLS.append(train)
        return nn.Dense(4)(images) * self.weights


CALLS: list[bool] = []


@pytest.mark.parametrize(("weights", "is_traced_again"), [(2.0, False), (np.ones(4), True)])
def test_what_follows_the_frozen_part_is_traced_once(weights: Any, is_traced_again: bool) -> None:
    network = Network(Counting(weights), cam_network(3).classifier, frozen="backbone")
    params = {"backbone": 1, "classifier": {"kernel": 2, "bias": 3}}
    assert trained_part(network, params, 97) == {"classifier": {"kernel": 2, "bias": 3}}
    CALLS.clear()
    assert trained_part(network, params, 97) == {"classifier": {"kernel": 2, "bias": 3}}
    assert bool(CALLS) == is_traced_again
    assert frozen_output_shapes(network, 97).shape == (1, 97, 97, 4)
    assert frozen_output_shapes(network, 33).shape == (1, 33, 33, 4)

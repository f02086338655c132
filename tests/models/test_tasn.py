"""TASN against its float64 reference: attention, samples, scores, losses and all gradients."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import shapes_of
from small_backbone import SMALL_BACKBONE
from systems import tasn as reference
from systems.layers import linear_gradient
from tiny_step import batch_of, build

from fgr_jax.config import Config
from fgr_jax.config import Network as Section
from fgr_jax.losses import cross_entropy
from fgr_jax.losses.interface import Objective, Targets
from fgr_jax.models.heads import sampling
from fgr_jax.models.heads.layers import STREAM
from fgr_jax.models.heads.tasn import TasnHead
from fgr_jax.models.network import Network, build_network, parameter_count

CLASSES, CHANNELS, SIDE, PATCH = 5, 6, 64, 8
LABELS = np.array([3, 0, 1])
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}


class Averages(nn.Module):
    """Features of the averages of patches."""

    stride: int = PATCH

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        del train
        kernel = self.param("kernel", nn.initializers.normal(), (3, CHANNELS), jnp.float64)
        patch = (PATCH, PATCH)
        return nn.relu(nn.avg_pool(images, patch, patch) @ kernel)


def means_of(images: Any) -> Any:
    batch, side = len(images), images.shape[1] // PATCH
    return images.reshape(batch, side, PATCH, side, PATCH, 3).mean((2, 4))


def features_of(params: Any, images: Any) -> Any:
    return np.maximum(means_of(images) @ params["backbone"]["kernel"], 0)


@pytest.fixture(scope="module")
def case() -> Any:
    """Parameters and images; outputs in training with the gradients of the mean loss; those in tests."""
    with jax.enable_x64(True):
        network = Network(Averages(), TasnHead(CLASSES, param_dtype=jnp.float64))
        rng = np.random.default_rng(0)
        images = rng.normal(size=(3, SIDE, SIDE, 3))
        images += rng.normal(size=(3, 8, 8, 3)).repeat(PATCH, 1).repeat(PATCH, 2)
        shapes = shapes_of(network, SIDE, SIDE)
        params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes["params"])
        objective = network.classifier.objective(
            Objective(lambda outputs, targets, _: cross_entropy(outputs.scores, targets.labels))
        )
        targets = Targets(*jax.device_put((LABELS, np.ones(3, bool), np.int32(0))))

        def mean_loss(params: Any, images: Any) -> Any:
            rngs = {STREAM: jax.random.key(1)}
            outputs: Any = network.apply({"params": params}, images, train=True, rngs=rngs)
            return objective.losses(outputs, targets, {}).mean(), outputs

        @jax.jit
        def computed(params: Any, images: Any) -> Any:
            found = jax.value_and_grad(mean_loss, has_aux=True)(params, images)
            return found, network.apply({"params": params}, images, train=False)

        yield params, images, *jax.device_get(computed(params, images))


def sample(image: Any, attention: Any) -> Any:
    """One image, sampled by the reference's places with the authors' limit."""
    evenly = reference.places(np.full(8, 1 / 8), SIDE)
    resized = reference.sample(attention[..., None], evenly, evenly)[..., 0]
    rows, columns = reference.limited(*reference.marginals(resized), SIDE // 2)
    return reference.sample(
        image, reference.places(rows, SIDE // 2), reference.places(columns, SIDE // 2)
    )


def scores_of(params: Any, features: Any, name: str) -> Any:
    layer = params["classifier"][name]
    return features.mean((1, 2)) @ layer["kernel"] + layer["bias"]


def test_scores_in_training_and_in_tests(case: Any) -> None:
    """The part network is given a sample by one of the attention maps."""
    params, images, ((_, outputs), _), tested = case
    features = features_of(params, images)
    maps = reference.trilinear_attention(features, reference.CODE_SCALE)
    structure = reference.structure_map(maps)
    whole = np.stack([sample(*each) for each in zip(images, structure, strict=True)])
    assert np.abs(whole - images[:, ::2, ::2]).max() > 0.1
    master = scores_of(params, features_of(params, whole), "linear")
    for found in (outputs, tested):
        np.testing.assert_allclose(found.scores, master, **CLOSE)
        wanted = scores_of(params, features, "image")
        np.testing.assert_allclose(found.branches["image"], wanted, **CLOSE)
        np.testing.assert_allclose(found.features, features_of(params, whole).mean((1, 2)), **CLOSE)
        assert found.maps is None
    assert sorted(tested.branches) == ["image"]
    drawn = drawn_channels(case)
    assert len(set(drawn)) > 1  # each image has its own


def drawn_channels(case: Any) -> list[int]:
    """The channels whose maps the parts were sampled by, of which exactly one fits."""
    params, images, ((_, outputs), _), _ = case
    maps = reference.trilinear_attention(features_of(params, images), reference.CODE_SCALE)
    drawn = []
    for image, of_image, part in zip(images, maps, outputs.branches["part"], strict=True):
        parts = np.stack([sample(image, of_image[..., d]) for d in range(CHANNELS)])
        scores = scores_of(params, features_of(params, parts), "linear")
        (channel,) = np.flatnonzero(np.isclose(scores, part, **CLOSE).all(1))
        drawn.append(int(channel))
    return drawn


def test_the_loss_and_the_gradients_of_all_parameters(case: Any) -> None:
    params, images, ((loss, outputs), gradients), _ = case
    maps = reference.trilinear_attention(features_of(params, images), reference.CODE_SCALE)
    details = [each[..., d] for each, d in zip(maps, drawn_channels(case), strict=True)]
    samples = [
        np.stack([sample(*each) for each in zip(images, attention, strict=True)])
        for attention in (reference.structure_map(maps), details)
    ]
    image, part, master = outputs.branches["image"], outputs.branches["part"], outputs.scores
    np.testing.assert_allclose(loss, reference.loss(image, part, master, LABELS), **CLOSE)
    d_image, d_part, d_master = reference.loss_gradient(image, part, master, LABELS)
    wanted: dict[str, Any] = {"backbone": 0.0, "image": (0.0, 0.0), "linear": (0.0, 0.0)}
    for given, cotangent, name in (
        (images, d_image, "image"),
        (samples[0], d_master, "linear"),
        (samples[1], d_part, "linear"),
    ):
        features = features_of(params, given)
        kernel = params["classifier"][name]["kernel"]
        d_average, *of_layer = linear_gradient(features.mean((1, 2)), kernel, cotangent)
        of_cells = d_average[:, None, None] / (features.shape[1] * features.shape[2])
        of_cells = of_cells * (features > 0)
        wanted["backbone"] += np.einsum("bijc,bijd->cd", means_of(given), of_cells)
        wanted[name] = tuple(map(np.add, wanted[name], of_layer))
    head = gradients["classifier"]
    assert head.keys() == {"image", "linear"}
    found = [gradients["backbone"]["kernel"]]
    found += [head[name][end] for name in head for end in ("kernel", "bias")]
    expected = [wanted["backbone"], *(each for name in head for each in wanted[name])]
    for ours, theirs in zip(found, expected, strict=True):
        assert np.abs(theirs).max() > 1e-2
        np.testing.assert_allclose(ours, theirs, **CLOSE)


SAMPLED = jax.jit(sampling.sampled, static_argnums=(2, 3))


def test_samples_of_a_peak_are_limited_and_those_of_nothing_are_even() -> None:
    """Against the reference, where the limit binds in every round and a corner is enlarged."""
    peaked = np.full((2, 6, 6), 0.01)
    peaked[0, 0, 5], peaked[0, 3, 5], peaked[1] = 5.0, 2.0, 0.0
    images = np.random.default_rng(0).normal(size=(2, 48, 48, 3))
    with jax.enable_x64(True):
        found = SAMPLED(images, peaked, 24, 4.0)
    evenly = reference.places(np.full(6, 1 / 6), 48)
    resized = reference.sample(peaked[0][..., None], evenly, evenly)[..., 0]
    rows, columns = reference.limited(*reference.marginals(resized), 24)
    grid = [reference.places(each, 24) for each in (rows, columns)]
    np.testing.assert_allclose(found[0], reference.sample(images[0], *grid), **CLOSE)
    assert grid[0][0] < 0
    assert grid[1][-1] > 47
    fewer = reference.limited(*reference.marginals(resized), 24, rounds=4)
    assert np.abs(fewer[1] - columns).max() > 1e-4
    halves = reference.places(np.full(48, 1 / 48), 24)
    np.testing.assert_allclose(found[1], reference.sample(images[1], halves, halves), **CLOSE)


def test_a_bright_object_is_enlarged_wherever_it_is() -> None:
    """And a mirrored image has mirrored samples."""
    image = np.zeros((1, 48, 48, 3), np.float32)
    image[0, 8:16, 24:32] = 1
    attention = np.full((1, 6, 6), 0.1, np.float32)
    attention[0, 1, 3] = 1
    found = np.asarray(SAMPLED(image, attention, 24, 4.0))
    # Of the 4×4 pixels that an even sample would have.
    assert (found[0, ..., 0] > 0.5).sum() > 3 * 16
    mirrored = SAMPLED(image[:, :, ::-1], attention[:, :, ::-1], 24, 4.0)
    np.testing.assert_allclose(mirrored, found[:, :, ::-1], atol=1e-4)


def test_negative_features_have_finite_samples() -> None:
    """Such as those of a transformer, whose attention maps may be below 0 everywhere."""
    head = TasnHead(2)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 16, 16, 3)).astype(np.float32)
    features = -np.abs(rng.normal(size=(2, 2, 2, CHANNELS)).astype(np.float32))
    again: Any = {"images": images, "features_of": lambda samples: samples}

    def scores(features: jax.Array) -> Any:
        key = jax.random.key(0)
        outputs: Any
        outputs, _ = head.init_with_output(
            {"params": key, STREAM: key}, features, train=True, **again
        )
        return outputs.scores, outputs.branches["part"]

    for found in jax.jit(scores)(features):
        assert np.isfinite(found).all()
    # Where some are above 0, the others are as 0.
    weights = np.array([[1.0, -2.0]], np.float32)
    cells = np.array([[[[1.0, 0.0], [1.0, 1.0]]]], np.float32)
    maps = jax.jit(sampling.attention)(cells, weights)
    assert maps.tolist() == [[[1.0, 0.0]]]


def test_the_parameters_are_those_of_two_classifiers() -> None:
    network = build_network(Config(network=Section(head="tasn")), 200)
    variables = shapes_of(network, 64, 64)
    of_backbone = parameter_count(variables["params"]["backbone"])
    assert parameter_count(variables["params"]) == of_backbone + 2 * 200 * 2049 == 24_327_632


def test_another_map_is_drawn_at_each_step(tiny: Config) -> None:
    """And the same again where a run is resumed."""
    tiny.network.backbone, tiny.network.head = SMALL_BACKBONE, "tasn"
    losses = []
    for step in (3, 4, 3):
        steps, state = build(tiny)
        state = state.replace(step=jnp.int32(step))
        losses.append(float(steps.train(state, batch_of(16))[1].loss))
    assert losses[0] == losses[2] != losses[1]

"""What GCE is compared with: each loss against its float64 reference, and in the training step."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_losses
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from score_batches import score_batches
from tiny_step import (
    CLASSES,
    as_numpy,
    batch_of,
    build,
    outputs_in_training,
    relative_difference,
    shown,
)

from fgr_jax import config as config_lib
from fgr_jax.benchmark.compiled import collectives
from fgr_jax.config import Config
from fgr_jax.diversification import suppression_mask
from fgr_jax.errors import UserError
from fgr_jax.losses import cross_entropy
from fgr_jax.losses.center import center_loss, moved_centers
from fgr_jax.losses.lgm import gaussian_bias, large_margin_gaussian_mixture
from fgr_jax.losses.max_entropy import entropy
from fgr_jax.losses.pairwise_confusion import pairwise_confusion
from fgr_jax.models.network import build_network, forward
from fgr_jax.random_streams import Stream, stream_key
from fgr_jax.train.step import TrainState

CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
WEIGHT = st.sampled_from([0.01, 0.3, 1.0])


@jax.jit
def max_entropy(scores: jax.Array, labels: jax.Array, gamma: jax.Array) -> jax.Array:
    return cross_entropy(scores, labels) - gamma * entropy(scores)


@jax.jit
def confused(scores: jax.Array, labels: jax.Array, weight: jax.Array) -> jax.Array:
    everyone = jnp.ones(len(labels), bool)
    confusion = pairwise_confusion(scores, labels, everyone)
    return jnp.mean(cross_entropy(scores, labels)) + weight * confusion


@functools.partial(jax.jit, static_argnames=("margin", "likelihood_weight"))
def lgm(
    features: jax.Array,
    means: jax.Array,
    labels: jax.Array,
    margin: float,
    likelihood_weight: float,
) -> jax.Array:
    scores = features @ means.T + gaussian_bias(means)
    return large_margin_gaussian_mixture(
        scores, features, means, labels, margin=margin, likelihood_weight=likelihood_weight
    )


@functools.partial(jax.jit, static_argnames=("margin", "likelihood_weight"))
def lgm_gradients(
    features: jax.Array,
    means: jax.Array,
    labels: jax.Array,
    margin: float,
    likelihood_weight: float,
) -> tuple[jax.Array, jax.Array]:
    def total(features: jax.Array, means: jax.Array) -> jax.Array:
        return lgm(features, means, labels, margin, likelihood_weight).sum()

    return jax.grad(total, argnums=(0, 1))(features, means)


@functools.partial(jax.jit, static_argnums=0)
def gradient_of(loss: Callable, *arguments: Any) -> jax.Array:
    """Of the sum of a loss, by its first argument."""
    return jax.grad(lambda *a: jnp.sum(loss(*a)))(*arguments)


@settings(max_examples=50, deadline=None)
@given(score_batches(), WEIGHT)
def test_max_entropy_values_and_gradients(batch: tuple, gamma: float) -> None:
    scores, labels = batch
    exact = scores.astype(np.float64)
    np.testing.assert_allclose(
        max_entropy(scores, labels, gamma),
        reference_losses.max_entropy(exact, labels, gamma),
        **CLOSE,
    )
    np.testing.assert_allclose(
        gradient_of(max_entropy, scores, labels, gamma),
        reference_losses.gradient(reference_losses.max_entropy, exact, labels, gamma),
        **CLOSE,
    )


@settings(max_examples=50, deadline=None)
@given(score_batches(ties=False), WEIGHT)
def test_pairwise_confusion_values_and_gradients(batch: tuple, weight: float) -> None:
    scores, labels = batch
    exact = scores.astype(np.float64)
    np.testing.assert_allclose(
        confused(scores, labels, weight),
        reference_losses.pairwise_confusion(exact, labels, weight),
        **CLOSE,
    )
    # Where two p are nearly equal the norm has a kink, and differences tell nothing.
    p = np.exp(exact) / np.exp(exact).sum(-1, keepdims=True)
    half = len(p) // 2
    assume((np.linalg.norm(p[:half] - p[half : 2 * half], axis=-1) > 0.01).all())
    np.testing.assert_allclose(
        gradient_of(confused, scores, labels, weight),
        reference_losses.gradient(reference_losses.pairwise_confusion, exact, labels, weight),
        **CLOSE,
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_examples_that_do_not_count_make_no_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(9, 3)).astype(np.float32)
    labels, counts = rng.integers(0, 3, 9), rng.random(9) < 0.7
    pairs = [i for i in range(4) if counts[i] and counts[i + 4]]
    rows = np.asarray(pairs + [i + 4 for i in pairs], int)
    expected = 0.0
    if pairs:
        exact = scores[rows].astype(np.float64)
        expected = reference_losses.pairwise_confusion(exact, labels[rows], 1.0)
        expected -= reference.cross_entropy(exact, labels[rows]).mean()
    np.testing.assert_allclose(
        pairwise_confusion(jnp.asarray(scores), jnp.asarray(labels), jnp.asarray(counts)),
        expected,
        **CLOSE,
    )


def test_equal_outputs_have_no_confusion_and_gradient_0() -> None:
    scores = jnp.asarray([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0], [1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    confusion, gradient = jax.value_and_grad(pairwise_confusion)(
        scores, jnp.asarray([0, 1, 1, 2]), jnp.ones(4, bool)
    )
    assert float(confusion) == 0
    assert not np.asarray(gradient).any()


def test_a_batch_without_a_pair_of_two_classes_has_no_confusion() -> None:
    scores = jax.random.normal(jax.random.key(0), (6, 3))
    confusion, gradient = jax.value_and_grad(pairwise_confusion)(
        scores, jnp.asarray([0, 1, 2, 0, 1, 2]), jnp.ones(6, bool)
    )
    assert float(confusion) == 0
    assert not np.asarray(gradient).any()


@st.composite
def feature_batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features `[B, D]` as after a ReLU, a row for every class `[C, D]`, labels `[B]`."""
    batch, width, classes = draw(st.sampled_from([(4, 3, 2), (6, 5, 4), (1, 8, 9)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    features = np.maximum(rng.normal(size=(batch, width)), 0).astype(np.float32)
    rows = rng.normal(size=(classes, width)).astype(np.float32)
    return features, rows, rng.integers(0, classes, batch)


@settings(max_examples=100, deadline=None)
@given(feature_batches())
def test_center_loss_values_and_gradients(batch: tuple) -> None:
    features, centers, labels = batch
    exact = features.astype(np.float64)
    np.testing.assert_allclose(
        center_loss(features, centers, labels),
        reference_losses.center_loss(exact, centers, labels),
        **CLOSE,
    )
    np.testing.assert_allclose(
        gradient_of(center_loss, features, centers, labels),
        reference_losses.gradient(reference_losses.center_loss, exact, centers, labels),
        **CLOSE,
    )


@settings(max_examples=100, deadline=None)
@given(feature_batches(), st.sampled_from([0.1, 0.5, 1.0]), st.integers(0, 2**32 - 1))
def test_centers_move_as_the_reference_says(batch: tuple, rate: float, seed: int) -> None:
    features, centers, labels = batch
    counts = np.random.default_rng(seed).random(len(labels)) < 0.7
    features[~counts] = np.nan  # whatever is there
    moved = np.asarray(moved_centers(features, centers, labels, jnp.asarray(counts), rate=rate))
    np.testing.assert_allclose(
        moved,
        reference_losses.center_update(features[counts], centers, labels[counts], rate),
        **CLOSE,
    )
    absent = np.setdiff1d(np.arange(len(centers)), labels[counts])
    np.testing.assert_array_equal(moved[absent], centers[absent])


@settings(max_examples=50, deadline=None)
@given(feature_batches(), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from([0.0, 0.1]))
def test_lgm_values_and_gradients(batch: tuple, margin: float, weight: float) -> None:
    features, means, labels = batch
    x, mu = features.astype(np.float64), means.astype(np.float64)
    of_reference = reference_losses.large_margin_gaussian_mixture
    np.testing.assert_allclose(
        lgm(features, means, labels, margin, weight),
        of_reference(x, mu, labels, margin, weight),
        **CLOSE,
    )
    of_features, of_means = lgm_gradients(features, means, labels, margin, weight)
    # A few of float32's roundings of sums as large as 10.
    np.testing.assert_allclose(
        of_features,
        reference_losses.gradient(of_reference, x, mu, labels, margin, weight),
        rtol=1e-6,
        atol=4e-6,
    )
    np.testing.assert_allclose(
        of_means,
        reference_losses.gradient(lambda m: of_reference(x, m, labels, margin, weight), mu),
        rtol=1e-6,
        atol=4e-6,
    )


@settings(max_examples=10, deadline=None)
@given(score_batches(sizes=((3, 5),)), st.integers(0, 2**32 - 1))
def test_weights_and_margin_0_are_cross_entropy_to_the_bit(batch: tuple, seed: int) -> None:
    """Operation by operation: compiled as one, two programs may differ in the last bit."""
    scores, labels = map(jnp.asarray, batch)
    rng = np.random.default_rng(seed)
    features = jnp.asarray(rng.normal(size=(len(labels), 3)), jnp.float32)
    rows = jnp.asarray(rng.normal(size=(scores.shape[1], 3)), jnp.float32)

    def plain(s: jax.Array) -> jax.Array:
        return cross_entropy(s, labels)

    losses: list[Callable[[jax.Array], jax.Array]] = [
        lambda s: plain(s) - 0.0 * entropy(s),
        lambda s: plain(s) + 0.0 * pairwise_confusion(s, labels, labels >= 0),
        lambda s: plain(s) + 0.0 * center_loss(features, rows, labels),
        lambda s: large_margin_gaussian_mixture(
            s, features, rows, labels, margin=0.0, likelihood_weight=0.0
        ),
    ]
    for loss in losses:
        value, pullback = jax.vjp(loss, scores)
        its_value, its_pullback = jax.vjp(plain, scores)
        np.testing.assert_array_equal(value, its_value)
        ones = jnp.ones_like(value)
        np.testing.assert_array_equal(pullback(ones)[0], its_pullback(ones)[0])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_scores_of_ten_thousand_stay_finite(dtype: jnp.dtype) -> None:
    scores = jnp.asarray([[1e4, -1e4, 1e4, 0], [1e4, 0, 0, 0], [0, -1e4, 1, 0], [0, 0, 1e4, 1]])
    scores, labels = scores.astype(dtype), jnp.asarray([0, 1, 2, 3])
    # Each on its own: cross-entropy, which they are added to, would lift a sum to float32.
    assert entropy(scores).dtype == jnp.float32
    assert pairwise_confusion(scores, labels, labels >= 0).dtype == jnp.float32
    assert center_loss(scores, scores, labels).dtype == jnp.float32
    for loss in (max_entropy, confused):
        value = loss(scores, labels, 1.0)
        assert value.dtype == jnp.float32
        assert np.isfinite(value).all()
        assert bool(jnp.isfinite(gradient_of(loss, scores, labels, 1.0)).all())


def test_nothing_that_is_no_number_goes_unseen() -> None:
    scores = jnp.asarray([[1.0, jnp.nan, 0.0], [0.0, 1.0, 2.0]])
    labels = jnp.asarray([0, 1])
    np.testing.assert_array_equal(np.isnan(entropy(scores)), [True, False])
    assert np.isnan(pairwise_confusion(scores, labels, jnp.ones(2, bool)))
    rows, features = jnp.zeros((3, 3)), scores
    nan_first = [True, False]
    np.testing.assert_array_equal(np.isnan(center_loss(features, rows, labels)), nan_first)
    for no_class in (-1, 3):
        labels = jnp.asarray([no_class, 1])
        features = jnp.ones((2, 3))
        np.testing.assert_array_equal(np.isnan(center_loss(features, rows, labels)), nan_first)
        np.testing.assert_array_equal(np.isnan(lgm(features, rows, labels, 0.1, 0.1)), nan_first)


# In the training step.

ADDITIONS = {
    "label_smoothing": 0.1,
    "max_entropy": 0.5,
    "pairwise_confusion": 2.0,
    "center": 0.3,
}
LGM = {"lgm": 0.2, "lgm_margin": 0.3}
ALONE = [{name: weight} for name, weight in ADDITIONS.items()]
LOSSES = [*ALONE, ADDITIONS, LGM]


def with_losses(config: Config, weights: dict[str, Any]) -> Config:
    return dataclasses.replace(config, loss=dataclasses.replace(config.loss, **weights))


def composed(
    weights: dict[str, float],
    scores: np.ndarray,
    features: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
) -> float:
    """The batch's loss from the references. `rows` are the centers, or L-GM's means."""
    if "lgm" in weights:
        distances = reference_losses.center_loss(features, rows, labels)
        scores = scores - 0.5 * (rows**2).sum(-1)
        scores[np.arange(len(labels)), labels] -= weights["lgm_margin"] * distances
        losses = reference.cross_entropy(scores, labels) + weights["lgm"] * distances
        return float(losses.mean())
    ce = reference.cross_entropy(scores, labels).mean()
    loss = reference_losses.label_smoothing_cross_entropy(
        scores, labels, weights.get("label_smoothing", 0.0)
    ).mean()
    loss += reference_losses.max_entropy(scores, labels, weights.get("max_entropy", 0.0)).mean()
    loss += reference_losses.pairwise_confusion(
        scores, labels, weights.get("pairwise_confusion", 0.0)
    )
    loss -= 2 * ce
    if "center" in weights:
        loss += weights["center"] * reference_losses.center_loss(features, rows, labels).mean()
    return float(loss)


def class_means(params: Any) -> jax.Array:
    return params["classifier"]["kernel"][0, 0].T


def with_bias(params: Any, bias: jax.Array) -> Any:
    return {**params, "classifier": {**params["classifier"], "bias": bias}}


@pytest.mark.parametrize(
    "weights",
    [ADDITIONS, LGM, *(pytest.param(weights, marks=pytest.mark.long) for weights in ALONE)],
    ids=" ".join,
)
def test_the_step_is_the_references_put_together(tiny: Config, weights: dict) -> None:
    """One step with the block: loss, parameters and centers from the parts in float64 NumPy."""
    tiny = with_losses(tiny, weights)
    steps, state = build(tiny, gce_start_step=None)
    # The CAM head in all cases: L-GM's is put together here.
    network = build_network(with_losses(tiny, {"lgm": 0.0}), CLASSES)
    is_lgm, labels = "lgm" in weights, np.asarray(batch_of(8)["label"])
    if "center" in weights:
        centers = jax.random.normal(jax.random.key(1), state.extra["centers"].shape)
        state = state.replace(extra={"centers": centers})
    if is_lgm:  # whatever stands there must not matter
        state = state.replace(params=with_bias(state.params, jnp.arange(5.0)))
    before, images = jax.tree.map(np.asarray, state), shown(batch_of(8))

    @jax.jit
    def maps_and_features(params: Any) -> Any:
        if is_lgm:
            params = with_bias(params, jnp.zeros(CLASSES))
        outputs, updates = network.apply(
            {"params": params, "batch_stats": before.batch_stats},
            images,
            train=True,
            mutable=["batch_stats", "intermediates"],
        )
        return outputs.maps, updates["intermediates"]["backbone"]["layer1"][0].mean((1, 2))

    (maps, pooled), pullback = jax.vjp(maps_and_features, before.params)
    mask = np.asarray(
        suppression_mask(
            stream_key(tiny.seed, Stream.DIVERSIFICATION, 0),
            maps,
            p_peak=0.5,
            p_patch=0.5,
            patch_size=1,
        )
    )
    scores = reference.class_scores(reference.diversify(np.asarray(maps, np.float64), mask, 0.1))
    features = np.asarray(pooled, np.float64)
    rows = np.asarray(class_means(before.params), np.float64)
    if "center" in weights:
        rows = np.asarray(before.extra["centers"], np.float64)

    of_scores, of_features, of_rows = (
        reference_losses.gradient(function, array)
        for function, array in (
            (lambda s: composed(weights, s, features, rows, labels), scores),
            (lambda f: composed(weights, scores, f, rows, labels), features),
            (lambda r: composed(weights, scores, features, r, labels), rows),
        )
    )
    cells = maps.shape[1] * maps.shape[2]
    of_maps = reference.diversify_gradient(
        mask, 0.1, np.broadcast_to(of_scores[:, None, None] / cells, maps.shape)
    )
    gradients = pullback((jnp.asarray(of_maps, jnp.float32), jnp.asarray(of_features, jnp.float32)))
    if is_lgm:
        gradients[0]["classifier"]["kernel"] += of_rows.T[None, None]
    expected = jax.tree.map(lambda w, g: w - 0.05 * (g + 1e-4 * w), before.params, gradients[0])
    if is_lgm:
        means = np.asarray(class_means(expected), np.float64)
        expected = with_bias(expected, jnp.asarray(-0.5 * (means**2).sum(-1)))

    after, record = steps.train(state, batch_of(8))
    np.testing.assert_allclose(
        record.loss, composed(weights, scores, features, rows, labels), rtol=1e-5
    )
    for part in ("backbone", "classifier"):
        change = jax.tree.map(jnp.subtract, after.params[part], before.params[part])
        wanted = jax.tree.map(jnp.subtract, expected[part], before.params[part])
        assert relative_difference(change, wanted) < 1e-4
    if "center" in weights:
        moved = reference_losses.center_update(features, rows, labels, 0.5)
        np.testing.assert_allclose(after.extra["centers"], moved, rtol=1e-5, atol=1e-6)


def test_masked_examples_move_no_center_and_make_no_pair(tiny: Config) -> None:
    tiny = with_losses(tiny, ADDITIONS)
    steps, state = build(tiny, gce_start_step=None)
    mask = np.asarray([True, False, True, True, True, True, True, False])
    labels = np.asarray([0, 1, 2, 3, 1, 1, 1, 1], np.int32)
    batch = {**batch_of(8), "label": jnp.asarray(labels), "mask": jnp.asarray(mask)}
    relabeled = {**batch, "label": jnp.asarray(np.where(mask, labels, 4).astype(np.int32))}
    one, (loss, _) = steps.train(state, batch)
    two, (other_loss, _) = steps.train(steps.init(), relabeled)
    assert float(loss) == float(other_loss)
    for ours, theirs in zip(as_numpy(one), as_numpy(two), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    centers = np.asarray(one.extra["centers"])
    assert centers[:4].any(axis=-1).all()
    assert not centers[4].any()


def test_only_center_loss_has_centers(tiny: Config) -> None:
    """The checkpoints of all others are what they were."""
    for weights in LOSSES:
        state = jax.eval_shape(build_init(with_losses(tiny, weights)))
        assert set(state.saved()) == {
            *("step", "params", "batch_stats", "opt_state", "epoch_totals"),
            *(["centers"] if "center" in weights else []),
        }


def build_init(config: Config) -> Callable[[], TrainState]:
    return build(config, gce_start_step=None)[0].init


def test_an_infinite_center_stops_the_run(tiny: Config) -> None:
    steps, state = build(with_losses(tiny, {"center": 0.1}), gce_start_step=None)
    assert bool(steps.is_finite(state))
    broken = state.replace(extra={"centers": state.extra["centers"].at[2, 3].set(jnp.inf)})
    assert not bool(steps.is_finite(broken))


def test_lgm_leaves_an_ordinary_classifier(tiny: Config) -> None:
    """Evaluation is of the scores −½‖x − μ‖², without a margin, by the parameters as they stand."""
    tiny = with_losses(tiny, LGM)
    steps, state = build(tiny, gce_start_step=None)
    state, _ = steps.train(state, batch_of(8))
    means = np.asarray(class_means(state.params), np.float64)
    np.testing.assert_allclose(
        state.params["classifier"]["bias"], -0.5 * (means**2).sum(-1), rtol=1e-6
    )
    batch = {name: rows for name, rows in batch_of(8, seed=1).items() if name != "symmetry"}
    totals, _ = steps.test(state, batch, steps.zeros())
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    features = np.asarray(forward(build_network(tiny, CLASSES), variables, batch["image"]).features)
    losses = reference_losses.large_margin_gaussian_mixture(
        features, means, np.asarray(batch["label"]), 0.0, 0.0
    )
    np.testing.assert_allclose(totals.loss, losses.sum(), rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("weights", [ADDITIONS, LGM], ids=" ".join)
def test_one_and_eight_devices_agree(tiny: Config, weights: dict) -> None:
    tiny = with_losses(tiny, weights)
    states = {}
    for devices in (1, 8):
        steps, state = build(tiny, gce_start_step=None, devices=devices)
        for seed in range(3):
            state, _ = steps.train(state, batch_of(8, devices=devices, seed=seed))
        assert ("centers" in state.extra) == ("center" in weights)
        states[devices] = (state.params, state.extra)
    assert relative_difference(states[8][0], states[1][0]) < 1e-4
    if "center" in weights:
        assert relative_difference(states[8][1], states[1][1]) < 1e-4


@pytest.mark.long
@pytest.mark.parametrize(
    "weights",
    [{"label_smoothing": 0.1, "max_entropy": 0.5, "center": 0.3}, LGM, ADDITIONS],
    ids=" ".join,
)
def test_only_pairs_have_rows_travel_between_devices(tiny: Config, weights: dict) -> None:
    steps, state = build(with_losses(tiny, weights), gce_start_step=None, devices=8)
    compiled = steps.train.lower(state, batch_of(8, devices=8)).compile()
    others = [each for each in collectives(compiled.as_text()) if each.kind != "all-reduce"]
    assert bool(others) == ("pairwise_confusion" in weights)
    largest = 8 * CLASSES  # the batch's softmax outputs
    for each in others:
        assert all(math.prod(shape) <= largest for shape in each.shapes)


@pytest.mark.parametrize("weights", [ADDITIONS, LGM], ids=" ".join)
def test_on_gpus_no_operation_depends_on_the_order_of_threads(tiny: Config, weights: dict) -> None:
    steps, state = build(with_losses(tiny, weights), gce_start_step=None)
    text = steps.train.trace(state, batch_of(8)).lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in text
    assert "scatter" not in text
    # Rows are looked up by products, which round to TF32 or bfloat16 unless told otherwise.
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    # Those of images `[B, h, w, D]`, and of all their cells `[B·h·w, D]`, are the 1×1 convolutions.
    of_images = re.compile(r"tensor<(\d+x){4}|tensor<(\d\d+)x\d+xf32>, tensor<\2x")
    products = [line for line in products if not of_images.search(line)]
    assert products
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_entropy": 0.3, "gce_start": "0 steps"}, "max_entropy=0.3: goes with cross-entropy"),
        ({"lgm": 0.1, "gce_start": "5 epochs"}, "lgm=0.1: goes with .* add --config.loss.gce_st"),
        ({"lgm": 0.1, "center": 0.3}, "center=0.3: does not go with --config.loss.lgm=0.1: set"),
        ({"center": -1.0}, "center=-1.0: must be at least 0, and finite"),
        ({"lgm_margin": math.nan}, "lgm_margin=nan: must be at least 0, and finite"),
        ({"pairwise_confusion": math.inf}, "pairwise_confusion=inf: must be at least 0, and"),
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: must be at least 0, less than 1"),
        ({"gce_fade": "soon"}, "gce_fade='soon': must be a duration"),
    ],
)
def test_what_does_not_go_together_is_named(tiny: Config, changed: dict, message: str) -> None:
    tiny.loss.gce_start = "never"
    with pytest.raises(UserError, match=f"--config.loss.{message}") as caught:
        config_lib.validate(with_losses(tiny, changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", LOSSES, ids=" ".join)
def test_what_goes_together_is_let_through(tiny: Config, weights: dict) -> None:
    config_lib.validate(with_losses(tiny, {**weights, "gce_start": "never"}))


def test_gce_goes_with_label_smoothing_and_with_nothing_else(tiny: Config) -> None:
    config_lib.validate(with_losses(tiny, {"label_smoothing": 0.1}))
    with pytest.raises(UserError, match=r"loss.center=0.3: goes with cross-entropy, not with GCE"):
        config_lib.validate(with_losses(tiny, {"label_smoothing": 0.1, "center": 0.3}))


def test_label_smoothing_stays_when_gce_takes_over(tiny: Config) -> None:
    tiny.diversification.alpha = 1.0
    tiny = with_losses(tiny, {"label_smoothing": 0.2})
    steps, state = build(tiny, gce_start_step=1)
    scores = np.asarray(outputs_in_training(tiny, state, batch_of(8)).scores, np.float64)
    labels = np.asarray(batch_of(8)["label"])
    for step, expected in (
        (0, reference_losses.label_smoothing_cross_entropy(scores, labels, 0.2)),
        (1, reference_losses.smoothed_gce(scores, labels, 2, 0.2)),
    ):
        copy = jax.tree.map(jnp.copy, state).replace(step=jnp.int32(step))
        loss = steps.train(copy, batch_of(8))[1].loss
        np.testing.assert_allclose(loss, expected.mean(), rtol=1e-5)

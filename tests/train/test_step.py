"""The compiled steps: masks, padding, several devices, the switch to GCE."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_losses
from tiny_step import (
    CLASSES,
    as_numpy,
    batch_of,
    build,
    outputs_in_training,
    relative_difference,
    shown,
)

from fgr_jax.benchmark.compiled import collectives
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config, Diversification
from fgr_jax.distributed import batch_sharding, data_mesh
from fgr_jax.diversification import class_scores, suppression_mask
from fgr_jax.losses.interface import Outputs, Targets
from fgr_jax.models.network import build_network
from fgr_jax.random_streams import Stream, stream_key
from fgr_jax.train.objective import build_objective
from fgr_jax.train.step import Totals, diversified, sum_over_examples


def test_the_step_is_network_block_and_gce_put_together(tiny: Config) -> None:
    """One step from the parts: masks by the named stream, loss and gradient in float64 NumPy."""
    tiny.diversification.patch_size = 2
    steps, state = build(tiny)
    state = state.replace(step=jnp.int32(7))
    before = jax.tree.map(np.asarray, state)
    batch = batch_of(8)
    images = shown(batch)
    network = build_network(tiny, CLASSES)

    @jax.jit
    def maps_of(params: dict) -> Any:
        outputs, updates = network.apply(
            {"params": params, "batch_stats": before.batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return outputs.maps, updates

    maps, pullback, updates = jax.vjp(maps_of, before.params, has_aux=True)
    mask = np.asarray(
        suppression_mask(
            stream_key(tiny.seed, Stream.DIVERSIFICATION, 7),
            maps,
            p_peak=0.5,
            p_patch=0.5,
            patch_size=2,
        )
    )
    labels = np.asarray(batch["label"])
    suppressed = reference.diversify(np.asarray(maps, np.float64), mask, 0.1)
    scores = reference.class_scores(suppressed)
    losses = reference.gradient_boosting_cross_entropy(scores, labels, tiny.loss.k)
    score_gradient = reference.gradient_boosting_cross_entropy_gradient(
        scores, labels, tiny.loss.k
    ) / len(labels)
    cells = maps.shape[1] * maps.shape[2]
    map_gradient = reference.diversify_gradient(
        mask, 0.1, np.broadcast_to(score_gradient[:, None, None] / cells, maps.shape)
    )
    gradients = pullback(jnp.asarray(map_gradient, jnp.float32))[0]
    expected = jax.tree.map(lambda w, g: w - 0.05 * (g + 1e-4 * w), before.params, gradients)

    after, (loss, _) = steps.train(state, batch)
    np.testing.assert_allclose(loss, losses.mean(), rtol=1e-5)
    change = jax.tree.map(jnp.subtract, after.params, before.params)
    assert relative_difference(change, jax.tree.map(jnp.subtract, expected, before.params)) < 1e-4
    assert relative_difference(after.batch_stats, updates["batch_stats"]) < 1e-6
    assert int(after.step) == 8
    assert int(after.epoch_totals.examples) == 8


def test_alpha_1_is_the_network_without_the_block_to_the_bit(tiny: Config) -> None:
    tiny.diversification.alpha = 1.0
    steps, state = build(tiny)
    other = dataclasses.replace(tiny.diversification, p_peak=1.0, p_patch=0.9, patch_size=3)
    other_steps, other_state = build(dataclasses.replace(tiny, diversification=other))
    for seed in range(3):
        state, _ = steps.train(state, batch_of(8, seed=seed))
        other_state, _ = other_steps.train(other_state, batch_of(8, seed=seed))
    for one, two in zip(as_numpy(state), as_numpy(other_state), strict=True):
        assert one.tobytes() == two.tobytes()


def test_masked_examples_count_for_nothing_in_the_loss(tiny: Config) -> None:
    steps, state = build(tiny)
    batch = batch_of(8)
    mask = np.asarray([True] * 5 + [False] * 3)
    masked = {**batch, "mask": jnp.asarray(mask)}
    other_labels = np.where(mask, np.asarray(batch["label"]), 0).astype(np.int32)
    relabeled = {**masked, "label": jnp.asarray(other_labels)}
    one, (loss, _) = steps.train(state, masked)
    two, (other_loss, _) = steps.train(steps.init(), relabeled)
    assert float(loss) == float(other_loss)
    for ours, theirs in zip(as_numpy(one), as_numpy(two), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert int(one.epoch_totals.examples) == 5
    whole_loss = steps.train(steps.init(), batch)[1].loss
    assert float(whole_loss) != float(loss)


def test_evaluation_does_not_depend_on_padding(tiny: Config) -> None:
    steps, state = build(tiny)
    batch = {name: rows for name, rows in batch_of(8).items() if name != "symmetry"}
    padded = {
        "image": jnp.concatenate([batch["image"][:6], jnp.zeros_like(batch["image"][:2])]),
        "label": batch["label"].at[6:].set(0),
        "mask": jnp.arange(8) < 6,
    }
    cut = {name: rows[:6] for name, rows in batch.items()}
    (ours, predicted), (theirs, expected) = (
        steps.test(state, each, steps.zeros()) for each in (padded, cut)
    )
    for one, other in zip(as_numpy(ours), as_numpy(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_array_equal(predicted[:6], expected)
    assert (predicted[6:, 0] == -1).all()
    np.testing.assert_array_equal(expected[:, 0], batch["label"][:6])
    assert np.count_nonzero(expected[:, 0] == expected[:, 1]) == theirs.top1


def test_totals_count_hits_and_ties_like_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (64, 9)).astype(np.float32)
    labels = rng.integers(0, 9, 64)
    mask = rng.random(64) < 0.8
    order = np.argsort(-scores, axis=-1, kind="stable")
    ranks = (order == labels[:, None]).argmax(-1)
    losses = rng.random(64).astype(np.float32)
    totals = sum_over_examples(
        jnp.asarray(scores),
        jnp.asarray(losses),
        {"label": jnp.asarray(labels), "mask": jnp.asarray(mask)},
    )
    assert int(totals.examples) == mask.sum()
    assert int(totals.top1) == (mask & (ranks < 1)).sum()
    assert int(totals.top5) == (mask & (ranks < 5)).sum()
    np.testing.assert_allclose(totals.loss, losses[mask].sum(), rtol=1e-6)


def test_nan_scores_are_no_hits() -> None:
    totals = sum_over_examples(
        jnp.full((3, 4), jnp.nan),
        jnp.zeros(3),
        {"label": jnp.zeros(3, jnp.int32), "mask": jnp.ones(3, bool)},
    )
    assert int(totals.top1) == int(totals.top5) == 0


def test_gce_takes_over_at_its_step(tiny: Config) -> None:
    """Cross-entropy's loss before, GCE's from then on; GCE over 2 of 4 negatives is smaller."""
    tiny.diversification.alpha = 1.0
    batch = batch_of(8)
    switching, state = build(tiny, gce_start_step=2)
    never, _ = build(tiny, gce_start_step=None)
    always, _ = build(tiny, gce_start_step=0)
    for step in range(4):
        copies = [jax.tree.map(jnp.copy, state) for _ in range(2)]
        ce, gce = (
            float(s.train(c, batch)[1].loss) for s, c in zip((never, always), copies, strict=True)
        )
        state, (loss, _) = switching.train(state, batch)
        assert gce < ce
        np.testing.assert_allclose(float(loss), ce if step < 2 else gce, rtol=1e-5)


@pytest.mark.parametrize(("step", "k"), [(1, CLASSES - 1), (2, 2)])
def test_labels_are_smoothed_before_and_after_the_switch(tiny: Config, step: int, k: int) -> None:
    tiny.loss.label_smoothing, tiny.loss.k, tiny.loss.gce_start = 0.2, 2, "2 steps"
    objective = build_objective(tiny, Calendar.of(tiny, examples=52), data_mesh())
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(8, CLASSES)), rng.integers(CLASSES, size=8)
    outputs = Outputs(jnp.asarray(scores, jnp.float32), jnp.zeros((8, 1)))
    targets = Targets(jnp.asarray(labels), jnp.ones(8, bool), jnp.int32(step))
    expected = reference_losses.smoothed_gce(scores, labels, k, 0.2)
    losses = jax.jit(objective.losses)(outputs, targets, {})
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_gce_arrives_over_its_fade(tiny: Config) -> None:
    """From step 2 on over 4 steps: 1, 3/4, 1/2, 1/4 and 0 are the weights of the other negatives."""
    tiny.diversification.alpha = 1.0
    batch = batch_of(8)
    fading, state = build(tiny, gce_start_step=2, gce_fade_steps=4)
    scores = np.asarray(outputs_in_training(tiny, state, batch).scores, np.float64)
    losses = {}
    for step, rest_weight in enumerate([1, 1, 1, 0.75, 0.5, 0.25, 0, 0]):
        expected = reference_losses.smooth_gce(scores, np.asarray(batch["label"]), 2, rest_weight)
        copy = jax.tree.map(jnp.copy, state).replace(step=jnp.int32(step))
        losses[step] = float(fading.train(copy, batch)[1].loss)
        np.testing.assert_allclose(losses[step], expected.mean(), rtol=1e-5)
    assert losses[0] == losses[1] == losses[2] > losses[3]
    assert losses[5] > losses[6] == losses[7]


def test_the_ends_of_the_fade_are_cross_entropy_and_gce_to_the_bit(tiny: Config) -> None:
    fading, state = build(tiny, gce_start_step=2, gce_fade_steps=3)
    for step, start in ((0, None), (2, None), (5, 0), (9, 0)):
        plain, _ = build(tiny, gce_start_step=start)
        outcomes = []
        for steps in (fading, plain):
            copy = jax.tree.map(jnp.copy, state).replace(step=jnp.int32(step))
            outcomes.append(steps.train(copy, batch_of(8)))
        for ours, theirs in zip(*map(as_numpy, outcomes), strict=True):
            assert ours.tobytes() == theirs.tobytes()


def test_it_is_all_gce_once_the_fade_is_over(tiny: Config) -> None:
    tiny.loss.gce_start, tiny.loss.gce_fade = "2 epochs", "10 steps"
    calendar = Calendar.of(tiny, examples=52)
    assert (calendar.gce_start_step, calendar.gce_fade_steps) == (13, 10)
    assert not calendar.is_all_gce(22)
    assert calendar.is_all_gce(23)
    tiny.loss.gce_start = "never"
    assert not Calendar.of(tiny, examples=52).is_all_gce(1000)


def test_eight_devices_see_the_batches_and_masks_of_one(tiny: Config) -> None:
    """Masks are drawn for the global batch; parameters differ by the order of sums alone."""
    tiny.diversification.patch_size = 2
    maps = jax.random.normal(jax.random.key(0), (16, 7, 7, CLASSES))

    def masks(step: jax.Array, maps: jax.Array) -> jax.Array:
        key = stream_key(tiny.seed, Stream.DIVERSIFICATION, step)
        return suppression_mask(key, maps, p_peak=0.5, p_patch=0.5, patch_size=2)

    drawn = {}
    for devices in (1, 8):
        sharding = batch_sharding(data_mesh(jax.devices()[:devices]))
        compiled = jax.jit(masks, in_shardings=(None, sharding), out_shardings=sharding)
        drawn[devices] = np.asarray(compiled(3, maps))
        placed = batch_of(16, devices=devices)["image"]
        assert len(placed.sharding.device_set) == devices
        np.testing.assert_array_equal(placed, batch_of(16)["image"])
    np.testing.assert_array_equal(drawn[1], drawn[8])

    states = {}
    for devices in (1, 8):
        steps, state = build(tiny, devices=devices)
        for seed in range(3):
            state, _ = steps.train(state, batch_of(16, devices=devices, seed=seed))
        states[devices] = state
    assert relative_difference(states[8].params, states[1].params) < 1e-4
    assert relative_difference(states[8].batch_stats, states[1].batch_stats) < 1e-4


def test_eight_devices_exchange_one_sum_of_all_gradients(tiny: Config) -> None:
    """And small ones: BatchNorm's statistics and their gradients, counts, the masks' digest."""
    steps, state = build(tiny, devices=8)
    compiled = steps.train.lower(state, batch_of(16, devices=8)).compile()
    found = collectives(compiled.as_text())
    assert {each.kind for each in found} == {"all-reduce"}  # no all-gather, nothing else

    def axes(shape: tuple[int, ...]) -> tuple[int, ...]:
        """The axes in any order, without those of a 1×1 convolution."""
        return tuple(sorted(length for length in shape if length > 1))

    kernels = sorted(axes(leaf.shape) for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1)
    exchanged = [
        sorted(axes(shape) for shape in each.shapes if len(axes(shape)) > 1) for each in found
    ]
    assert [shapes for shapes in exchanged if shapes] == [kernels]
    largest = max(leaf.size for leaf in jax.tree.leaves(state.batch_stats))
    for each in found:
        vectors = [shape for shape in each.shapes if len(axes(shape)) <= 1]
        assert all(math.prod(shape) <= largest for shape in vectors)
    layers = len(jax.tree.leaves(state.batch_stats)) // 2
    assert len(found) <= 2 * layers + 3


def test_on_gpus_no_operation_depends_on_the_order_of_threads(tiny: Config) -> None:
    """A scatter adds up in any order; a select-and-scatter has no deterministic form at all."""
    steps, state = build(tiny, gce_start_step=3)
    traced = steps.train.trace(state, batch_of(8))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in text
    assert "scatter" not in text


def test_totals_are_added_and_start_at_zero() -> None:
    totals = Totals.zeros() + Totals.zeros()
    assert [float(leaf) for leaf in jax.tree.leaves(totals)] == [0, 0, 0, 0]


def test_steps_overfit_one_batch(tiny: Config) -> None:
    tiny.diversification.alpha = 1.0
    steps, state = build(tiny, gce_start_step=None)
    batch = batch_of(8)
    losses = []
    for _ in range(60):
        state, (loss, _) = steps.train(state, batch)
        losses.append(float(loss))
    assert losses[-1] < 0.2 < 1.0 < losses[0]


@pytest.mark.parametrize("label", [0, 3])
def test_a_nan_image_gives_a_nan_loss(tiny: Config, label: int) -> None:
    steps, state = build(tiny)
    poisoned = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params["classifier"])
    state = state.replace(params={**state.params, "classifier": poisoned})
    batch = {**batch_of(8), "label": jnp.full(8, label, jnp.int32)}
    assert np.isnan(float(steps.train(state, batch)[1].loss))


@pytest.mark.parametrize(
    ("rows", "columns", "as_if"),
    [
        (14, 10, {}),
        (9, 14, {"patch_size": 2, "p_patch": 0.1}),
        (7, 4, {"patch_size": 2, "p_patch": 0.1}),
        (3, 14, {"alpha": 1.0}),
    ],
)
def test_the_block_fits_the_maps_where_that_is_wanted(
    rows: int, columns: int, as_if: dict[str, Any]
) -> None:
    maps = jax.random.normal(jax.random.key(0), (4, rows, columns, CLASSES))
    outputs = Outputs(class_scores(maps), jnp.zeros((4, 2)), maps)
    key = jax.random.key(1)
    weak = Diversification(p_patch=0.05, patch_size=1, fit_to_maps=True)
    own = dataclasses.replace(weak, fit_to_maps=False, alpha=1.0 if rows < 4 else weak.alpha)
    sections = (Diversification(fit_to_maps=True), Diversification(**as_if), Diversification())

    @jax.jit
    def of_all(outputs: Outputs, key: jax.Array) -> list[Any]:
        return [diversified(outputs, section, key) for section in (*sections, weak, own)]

    (fitted, digest), (expected, of_expected), *others = of_all(outputs, key)
    as_paper, of_weak, of_own = (each.scores for each, _ in others)
    np.testing.assert_array_equal(fitted.scores, expected.scores)
    np.testing.assert_array_equal(digest, of_expected)
    assert np.array_equal(fitted.scores, as_paper) == (not as_if)
    # It makes nothing stronger.
    np.testing.assert_array_equal(of_weak, of_own)

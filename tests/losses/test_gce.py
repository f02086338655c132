"""Cross-entropy and GCE against the paper's equations 9 to 16."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import reference_losses
from hypothesis import given, settings
from hypothesis import strategies as st
from score_batches import score_batches

from fgr_jax import cross_entropy, gradient_boosting_cross_entropy

# Of so many negatives, which are those of `score_batches`, some, all but one, all, and more than there
# are: each is compiled anew.
K = {1: (1, 3), 4: (1, 3, 4, 6), 16: (3, 15, 16, 18), 39: (15, 38, 39, 41)}
# With smoothing; it is compiled anew as well.
SOME_K = {1: (1,), 4: (1, 6), 16: (3, 18), 39: (15, 41)}


@st.composite
def with_k(
    draw: st.DrawFn,
    batches: st.SearchStrategy[tuple[np.ndarray, np.ndarray]],
    of_negatives: dict[int, tuple[int, ...]] = K,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores, labels, and one of the k for so many negatives."""
    scores, labels = draw(batches)
    return scores, labels, draw(st.sampled_from(of_negatives[scores.shape[1] - 1]))


def with_k_left_out(**options: Any) -> st.SearchStrategy[tuple[np.ndarray, np.ndarray, int]]:
    """Likewise, where there are more negatives than k."""
    fewer = {negatives: tuple(k for k in ks if k < negatives) for negatives, ks in K.items()}
    batches = score_batches(sizes=((3, 5), (5, 17), (1, 40)), **options)
    return with_k(batches, fewer)


@functools.partial(jax.jit, static_argnames="k")
def gce(scores: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    return gradient_boosting_cross_entropy(scores, labels, k)


@functools.partial(jax.jit, static_argnames="k")
def gce_gradient(scores: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Of each example's own loss, `[B, C]`."""
    return jax.grad(lambda s: gradient_boosting_cross_entropy(s, labels, k).sum())(scores)


@jax.jit
def ce_gradient(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Of each example's own loss, `[B, C]`."""
    return jax.grad(lambda s: cross_entropy(s, labels).sum())(scores)


@settings(max_examples=150, deadline=None)
@given(score_batches())
def test_cross_entropy_values_and_gradients(batch: tuple) -> None:
    scores, labels = batch
    exact = scores.astype(np.float64)
    np.testing.assert_allclose(
        jax.jit(cross_entropy)(scores, labels),
        reference.cross_entropy(exact, labels),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        ce_gradient(scores, labels),
        reference.cross_entropy_gradient(exact, labels),
        atol=1e-6,
    )


SMOOTHING = st.sampled_from([0.1, 1.0])


@functools.partial(jax.jit, static_argnames="smoothing")
def smoothed(scores: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    return cross_entropy(scores, labels, label_smoothing=smoothing)


@functools.partial(jax.jit, static_argnames="smoothing")
def smoothed_gradient(scores: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    """Of each example's own loss, `[B, C]`."""
    return jax.grad(lambda s: smoothed(s, labels, smoothing).sum())(scores)


@settings(max_examples=50, deadline=None)
@given(score_batches(), SMOOTHING)
def test_label_smoothing_values_and_gradients(batch: tuple, smoothing: float) -> None:
    scores, labels = batch
    exact = scores.astype(np.float64)
    of_reference = reference_losses.label_smoothing_cross_entropy
    np.testing.assert_allclose(
        smoothed(scores, labels, smoothing),
        of_reference(exact, labels, smoothing),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        smoothed_gradient(scores, labels, smoothing),
        reference_losses.gradient(of_reference, exact, labels, smoothing),
        atol=1e-6,
    )


@settings(max_examples=50, deadline=None)
@given(score_batches())
def test_label_smoothing_0_is_cross_entropy_to_the_bit(batch: tuple) -> None:
    scores, labels = batch
    np.testing.assert_array_equal(
        smoothed(scores, labels, 0.0), jax.jit(cross_entropy)(scores, labels)
    )
    np.testing.assert_array_equal(
        smoothed_gradient(scores, labels, 0.0), ce_gradient(scores, labels)
    )


@pytest.mark.parametrize("smoothing", [-0.1, 1.5])
def test_label_smoothing_outside_0_and_1_is_an_error_that_names_it(smoothing: float) -> None:
    with pytest.raises(ValueError, match=rf"label_smoothing must be in \[0, 1\], got {smoothing}"):
        cross_entropy(jnp.zeros((2, 4)), jnp.asarray([0, 1]), label_smoothing=smoothing)


@settings(max_examples=150, deadline=None)
@given(with_k(score_batches()))
def test_gce_values_and_gradients(batch: tuple) -> None:
    scores, labels, k = batch
    exact = scores.astype(np.float64)
    np.testing.assert_allclose(
        gce(scores, labels, k),
        reference.gradient_boosting_cross_entropy(exact, labels, k),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        gce_gradient(scores, labels, k),
        reference.gradient_boosting_cross_entropy_gradient(exact, labels, k),
        atol=1e-6,
    )


@settings(max_examples=100, deadline=None)
@given(score_batches(), st.sampled_from([0, 2]))
def test_k_from_classes_minus_1_is_cross_entropy_to_the_bit(batch: tuple, beyond: int) -> None:
    scores, labels = batch
    k = scores.shape[1] - 1 + beyond
    ce = jax.jit(cross_entropy)(scores, labels)
    assert np.asarray(gce(scores, labels, k)).tobytes() == np.asarray(ce).tobytes()
    gradients = np.asarray(gce_gradient(scores, labels, k))
    assert gradients.tobytes() == np.asarray(ce_gradient(scores, labels)).tobytes()


@settings(max_examples=100, deadline=None)
@given(with_k_left_out(spreads=(0.1, 1.0)))  # no class so unlikely that float64 loses it
def test_gradient_boosting_equation_16(batch: tuple) -> None:
    """Eq. 16: GCE's gradient is the larger one, for the truth and every chosen negative.

    The inequality is one of signed values. In magnitude a chosen negative's gradient grows, while
    the truth's, which is minus their sum, shrinks: its negatives that were not chosen are missing.
    """
    scores, labels, k = batch
    with jax.enable_x64(True):
        scores = scores.astype(np.float64)
        ce = np.asarray(ce_gradient(scores, labels))
        boosted = np.asarray(gce_gradient(scores, labels, k))
    chosen = reference.hardest_negatives(scores, labels, k)
    truth = np.arange(scores.shape[1]) == labels[:, None]
    assert (boosted[truth | chosen] > ce[truth | chosen]).all()
    assert (np.abs(boosted[chosen]) > np.abs(ce[chosen])).all()
    assert (np.abs(boosted[truth]) < np.abs(ce[truth])).all()
    assert (boosted[~(truth | chosen)] == 0).all()


@settings(max_examples=100, deadline=None)
@given(with_k_left_out(ties=True))
def test_exactly_k_negatives_count_and_never_the_truth(batch: tuple) -> None:
    scores, labels, k = batch
    gradients = np.asarray(gce_gradient(scores, labels, k))
    assert ((gradients > 0).sum(-1) == k).all()
    assert (np.take_along_axis(gradients, labels[:, None], -1) < 0).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("k", [1, 3, 7, 15])
@pytest.mark.parametrize("label", [0, 4, 7])
def test_scores_of_ten_thousand_stay_finite(dtype: jnp.dtype, k: int, label: int) -> None:
    scores = jnp.asarray([[1e4, -1e4, 1e4, 0, -1e4, 1e4, -1e4, -1e4]], dtype)
    labels = jnp.asarray([label])
    loss, gradients = jax.value_and_grad(
        lambda s: gradient_boosting_cross_entropy(s, labels, k).sum()
    )(scores)
    assert loss.dtype == jnp.float32
    assert bool(jnp.isfinite(loss))
    assert bool(jnp.isfinite(gradients).all())
    exact = np.asarray(scores, np.float64)
    np.testing.assert_allclose(
        loss,
        reference.gradient_boosting_cross_entropy(exact, np.asarray(labels), k)[0],
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("position", range(6))
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_nan_score_makes_the_loss_nan(sign: float, position: int, k: int) -> None:
    # lax.top_k ranks a NaN by its sign bit: a negative one is never among the hardest.
    scores = np.asarray([[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]], np.float32)
    scores[0, position] = np.copysign(np.nan, sign)
    loss = gradient_boosting_cross_entropy(jnp.asarray(scores), jnp.asarray([0, 0]), k)
    assert np.isnan(loss[0])
    assert np.isfinite(loss[1])


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("label", [-1, -4, 4])
def test_a_label_that_names_no_class_makes_the_loss_nan(k: int, label: int) -> None:
    scores, labels = jnp.zeros((2, 4)), jnp.asarray([1, label])
    loss = gradient_boosting_cross_entropy(scores, labels, k)
    assert np.isfinite(loss[0])
    assert np.isnan(loss[1])


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_1_is_an_error_that_names_it(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be at least 1, got {k}"):
        gradient_boosting_cross_entropy(jnp.zeros((2, 4)), jnp.asarray([0, 1]), k)


REST_WEIGHT = st.floats(1e-6, 1.0)


@functools.partial(jax.jit, static_argnames="k")
def bridged(scores: jax.Array, labels: jax.Array, k: int, rest_weight: jax.Array) -> jax.Array:
    return gradient_boosting_cross_entropy(scores, labels, k, rest_weight=rest_weight)


@functools.partial(jax.jit, static_argnames="k")
def bridged_gradient(
    scores: jax.Array, labels: jax.Array, k: int, rest_weight: jax.Array
) -> jax.Array:
    return jax.grad(lambda s: bridged(s, labels, k, rest_weight).sum())(scores)


@settings(max_examples=100, deadline=None)
@given(with_k(score_batches(ties=False)), REST_WEIGHT)
def test_between_cross_entropy_and_gce(batch: tuple, rest_weight: float) -> None:
    scores, labels, k = batch
    exact = scores.astype(np.float64)
    np.testing.assert_allclose(
        bridged(scores, labels, k, jnp.float32(rest_weight)),
        reference_losses.smooth_gce(exact, labels, k, rest_weight),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        bridged_gradient(scores, labels, k, jnp.float32(rest_weight)),
        bridge_gradient_in_float64(exact, labels, k, rest_weight),
        atol=1e-6,
    )


def bridge_gradient_in_float64(
    scores: np.ndarray, labels: np.ndarray, k: int, rest_weight: float
) -> np.ndarray:
    """The weighted softmax less the truth. Not by differences: the choice of the k is a jump."""
    truth = np.arange(scores.shape[1]) == labels[:, None]
    chosen = reference.hardest_negatives(scores, labels, min(k, scores.shape[1] - 1))
    weighted = np.where(truth | chosen, 1.0, rest_weight) * np.exp(scores)
    return weighted / weighted.sum(-1, keepdims=True) - truth


@settings(max_examples=100, deadline=None)
@given(with_k(score_batches()))
def test_both_ends_of_the_bridge_to_the_bit(batch: tuple) -> None:
    scores, labels, k = batch
    for rest_weight, end, its_gradient in (
        (1.0, jax.jit(cross_entropy)(scores, labels), ce_gradient(scores, labels)),
        (0.0, gce(scores, labels, k), gce_gradient(scores, labels, k)),
    ):
        weight = jnp.float32(rest_weight)
        np.testing.assert_array_equal(bridged(scores, labels, k, weight), end)
        np.testing.assert_array_equal(bridged_gradient(scores, labels, k, weight), its_gradient)


@functools.partial(jax.jit, static_argnames=("k", "smoothing"))
def smoothed_gce(
    scores: jax.Array, labels: jax.Array, k: int, smoothing: float, rest_weight: jax.Array
) -> jax.Array:
    return gradient_boosting_cross_entropy(
        scores, labels, k, rest_weight=rest_weight, label_smoothing=smoothing
    )


@functools.partial(jax.jit, static_argnames=("k", "smoothing"))
def smoothed_gce_gradient(
    scores: jax.Array, labels: jax.Array, k: int, smoothing: float, rest_weight: jax.Array
) -> jax.Array:
    return jax.grad(lambda s: smoothed_gce(s, labels, k, smoothing, rest_weight).sum())(scores)


SOME_SMOOTHING = st.sampled_from([0.1, 0.5])


@settings(max_examples=80, deadline=None)
@given(with_k(score_batches(), SOME_K), SOME_SMOOTHING, st.sampled_from([0.0, 0.3, 1.0]))
def test_gce_with_label_smoothing(batch: tuple, smoothing: float, weight: float) -> None:
    scores, labels, k = batch
    exact = scores.astype(np.float64)
    np.testing.assert_allclose(
        smoothed_gce(scores, labels, k, smoothing, jnp.float32(weight)),
        reference_losses.smoothed_gce(exact, labels, k, smoothing, weight),
        rtol=1e-6,
        atol=1e-6,
    )
    # The softmax less the target, both over the weighted classes.
    truth = np.arange(scores.shape[1]) == labels[:, None]
    chosen = reference.hardest_negatives(scores, labels, min(k, scores.shape[1] - 1))
    weights = np.where(truth | chosen, 1.0, weight)
    target = (1 - smoothing) * truth + smoothing * weights / weights.sum(-1, keepdims=True)
    softmax = bridge_gradient_in_float64(exact, labels, k, weight) + truth
    np.testing.assert_allclose(
        smoothed_gce_gradient(scores, labels, k, smoothing, jnp.float32(weight)),
        softmax - target,
        atol=1e-6,
    )


@settings(max_examples=40, deadline=None)
@given(with_k(score_batches(), SOME_K), SOME_SMOOTHING, st.sampled_from([0, 2]))
def test_the_ends_of_smoothed_gce_to_the_bit(batch: tuple, smoothing: float, beyond: int) -> None:
    scores, labels, k = batch
    one, zero = jnp.float32(1), jnp.float32(0)
    every = scores.shape[1] - 1 + beyond
    of_ce = smoothed(scores, labels, smoothing)
    its_gradient = smoothed_gradient(scores, labels, smoothing)
    np.testing.assert_array_equal(smoothed_gce(scores, labels, every, smoothing, zero), of_ce)
    np.testing.assert_array_equal(
        smoothed_gce_gradient(scores, labels, every, smoothing, zero), its_gradient
    )
    # Compiled as one, these may differ in the last bit.
    np.testing.assert_allclose(
        smoothed_gce(scores, labels, k, smoothing, one), of_ce, rtol=3e-7, atol=2e-7
    )
    np.testing.assert_allclose(
        smoothed_gce_gradient(scores, labels, k, smoothing, one), its_gradient, atol=2e-7
    )
    np.testing.assert_array_equal(
        smoothed_gce(scores, labels, k, 0.0, zero), gce(scores, labels, k)
    )
    np.testing.assert_array_equal(
        smoothed_gce_gradient(scores, labels, k, 0.0, zero), gce_gradient(scores, labels, k)
    )


@pytest.mark.parametrize("smoothing", [-0.1, 1.5])
def test_label_smoothing_of_gce_outside_0_and_1_is_an_error(smoothing: float) -> None:
    with pytest.raises(ValueError, match=rf"label_smoothing must be in \[0, 1\], got {smoothing}"):
        gradient_boosting_cross_entropy(
            jnp.zeros((2, 4)), jnp.asarray([0, 1]), 2, label_smoothing=smoothing
        )

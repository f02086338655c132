"""The public functions take numbers, labels and maps of every type that means the same."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax import class_scores, cross_entropy, diversify, gradient_boosting_cross_entropy
from fgr_jax.diversification import draw, suppression_mask
from fgr_jax.losses.center import center_loss, moved_centers
from fgr_jax.losses.lgm import gaussian_bias, large_margin_gaussian_mixture
from fgr_jax.losses.max_entropy import entropy
from fgr_jax.losses.pairwise_confusion import pairwise_confusion

KEY = jax.random.key(0)
MAPS = jnp.asarray(np.random.default_rng(0).integers(-9, 9, (2, 5, 4, 3)), jnp.float32)
LOGITS = jnp.asarray(np.random.default_rng(1).integers(-9, 9, (4, 7)), jnp.float32)
LABELS = jnp.asarray([6, 0, 3, 3])
FEATURES, CENTERS = LOGITS[:, :5], jnp.asarray(np.arange(35.0).reshape(7, 5) % 4, jnp.float32)
BLOCK: dict[str, Any] = {"p_peak": 0.5, "p_patch": 0.5, "patch_size": 2, "alpha": 0.5}

# How a whole number can be written.
WHOLE: list[Callable[[int], Any]] = [
    int,
    float,
    np.int8,
    np.uint64,
    np.int64,
    np.float32,
    np.float64,
    lambda value: np.asarray(value, np.uint8),
    lambda value: np.asarray(value, np.float64),
    lambda value: jnp.asarray(value, jnp.int32),
    lambda value: jnp.asarray(value, jnp.float32),
]
HALF: Any = 3.5
ONE: Any = [True]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


# Every number is traced.
compiled_block = jax.jit(lambda numbers: diversify(KEY, MAPS, patch_size=2, **numbers))


def equal(ours: Any, theirs: Any) -> None:
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@settings(max_examples=12, deadline=None)
@given(
    values=st.fixed_dictionaries(
        {name: st.integers(0, 1) for name in ("p_peak", "p_patch", "alpha")}
    ),
    kinds=st.lists(st.sampled_from(WHOLE), min_size=3, max_size=3),
    size=st.sampled_from([int, np.int8, np.uint64, np.asarray, jnp.asarray]),
    compiled=st.booleans(),
)
def test_the_block_takes_whole_numbers(
    values: dict[str, int],
    kinds: list[Callable[[int], Any]],
    size: Callable[[int], Any],
    compiled: bool,
) -> None:
    given = {name: kind(value) for (name, value), kind in zip(values.items(), kinds, strict=True)}
    expected = diversify(KEY, MAPS, patch_size=2, **{name: float(v) for name, v in values.items()})
    if compiled:
        equal(
            jax.jit(lambda numbers: diversify(KEY, MAPS, patch_size=2, **numbers))(given), expected
        )
    equal(diversify(KEY, MAPS, patch_size=size(2), **given), expected)
    mask = suppression_mask(
        KEY, MAPS, p_peak=given["p_peak"], p_patch=given["p_patch"], patch_size=size(2)
    )
    if values["alpha"] == 0:
        equal(jnp.where(mask, 0, MAPS), expected)


@pytest.mark.parametrize("kind", [*INTEGERS, "float64", "list"])
def test_maps_and_scores_of_whole_numbers(kind: str) -> None:
    def converted(array: jax.Array) -> Any:
        whole = np.abs(np.asarray(array))
        return whole.tolist() if kind == "list" else whole.astype(kind)

    maps, logits = jnp.abs(MAPS), jnp.abs(LOGITS)
    equal(diversify(KEY, converted(maps), **BLOCK), diversify(KEY, maps, **BLOCK))
    equal(class_scores(converted(maps)), class_scores(maps))
    equal(entropy(converted(logits)), entropy(logits))
    equal(gaussian_bias(converted(CENTERS)), gaussian_bias(CENTERS))


def losses(
    logits: Any, labels: Any, k: Any, mask: Any, number: Callable[[int], Any]
) -> dict[str, jax.Array]:
    return {
        "ce": cross_entropy(logits, labels, label_smoothing=number(1)),
        "gce": gradient_boosting_cross_entropy(logits, labels, k, rest_weight=number(0)),
        "all": gradient_boosting_cross_entropy(logits, labels, k, rest_weight=number(1)),
        "center": center_loss(FEATURES, CENTERS, labels),
        "moved": moved_centers(FEATURES, CENTERS, labels, mask, rate=number(1)),
        "lgm": large_margin_gaussian_mixture(
            logits, FEATURES, CENTERS, labels, margin=number(1), likelihood_weight=number(0)
        ),
        "confusion": pairwise_confusion(logits, labels, mask),
    }


@settings(max_examples=25, deadline=None)
@given(
    labels=st.sampled_from([*INTEGERS, "list", "jax"]),
    k=st.sampled_from([int, np.int16, np.uint64, np.asarray, jnp.asarray]),
    mask=st.sampled_from([np.asarray, jnp.asarray, list, lambda values: np.asarray(values, int)]),
    number=st.sampled_from(WHOLE),
    logits=st.sampled_from([np.asarray, np.float64, np.int16, jnp.asarray, lambda a: a.tolist()]),
)
def test_losses_take_every_type_of_number(
    labels: str, k: Any, mask: Any, number: Callable[[int], Any], logits: Any
) -> None:
    plain = {"list": LABELS.tolist(), "jax": LABELS}
    of_labels = plain[labels] if labels in plain else np.asarray(LABELS).astype(labels)
    ours = losses(logits(LOGITS), of_labels, k(3), mask([True, False, True, True]), number)
    equal(ours, losses(LOGITS, LABELS, 3, jnp.asarray([True, False, True, True]), float))


def test_they_can_be_compiled_mapped_and_differentiated() -> None:
    mask = jnp.ones(4, bool)

    def total(logits: jax.Array, labels: jax.Array, number: jax.Array) -> jax.Array:
        values = losses(logits, labels, 3, mask, lambda value: value * number)
        return sum(jnp.sum(value) for value in values.values())  # type: ignore[return-value]

    plain = jax.grad(total)(LOGITS, LABELS, 1.0)
    np.testing.assert_allclose(jax.jit(jax.grad(total))(LOGITS, LABELS, 1.0), plain, rtol=1e-5)
    stacked = jax.vmap(jax.grad(total), in_axes=(0, 0, None))(
        jnp.stack([LOGITS, LOGITS]), jnp.stack([LABELS, LABELS]), 1.0
    )
    np.testing.assert_allclose(stacked, jnp.stack([plain, plain]), rtol=1e-5)
    mapped = jax.vmap(lambda p: diversify(KEY, MAPS, **{**BLOCK, "p_peak": p}))(jnp.asarray([0, 1]))
    equal(mapped[1], diversify(KEY, MAPS, **{**BLOCK, "p_peak": 1.0}))


@pytest.mark.parametrize("kind", ["int64", "uint64"])
@pytest.mark.parametrize("label", [2**32, 2**32 + 3, 2**63 - 1])
def test_a_label_beyond_32_bits_is_out_of_range(kind: str, label: int) -> None:
    loss = cross_entropy(LOGITS, np.asarray([label, 1, 2, 3], kind))
    assert np.isnan(loss).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("field", "value", "kind", "words"),
    [
        ("p_peak", 1.5, ValueError, r"p_peak must be in \[0, 1\], got 1.5"),
        ("p_patch", np.float32(-1), ValueError, r"p_patch must be in \[0, 1\]"),
        ("p_patch", jnp.asarray(2), ValueError, r"p_patch must be in \[0, 1\]"),
        ("p_peak", float("nan"), ValueError, r"p_peak must be in \[0, 1\]"),
        ("p_peak", "half", TypeError, "p_peak must be a number, got 'half'"),
        ("p_peak", None, ValueError, r"p_peak must be in \[0, 1\], got None"),
        ("alpha", -0.1, ValueError, r"alpha must be in \[0, 1\]"),
        ("patch_size", 0, ValueError, "patch_size must be at least 1, got 0"),
        ("patch_size", 2.0, TypeError, "patch_size must be a whole number"),
    ],
)
def test_what_is_no_number_for_the_block(
    field: str, value: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        diversify(KEY, MAPS, **{**BLOCK, field: value})


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: diversify(KEY, MAPS > 0, **BLOCK), TypeError, "maps must hold numbers, got bool"),
        (lambda: class_scores(MAPS[0]), ValueError, r"maps must be \[B, H, W, C\]"),
        (
            lambda: cross_entropy(LOGITS, LABELS * 1.0),
            TypeError,
            "labels must be integers, got float32",
        ),
        (lambda: cross_entropy(LOGITS, LABELS > 2), TypeError, "labels must be integers, got bool"),
        (lambda: cross_entropy(LOGITS, LABELS[:, None]), ValueError, r"labels must be \[B\]"),
        (lambda: cross_entropy(LOGITS, LABELS[:1]), ValueError, r"labels must be \[B\] with B = 4"),
        (lambda: cross_entropy(LOGITS[0], LABELS), ValueError, r"logits must be \[B, C\]"),
        (
            lambda: cross_entropy(LOGITS, LABELS, label_smoothing=2),
            ValueError,
            "label_smoothing must",
        ),
        (
            lambda: gradient_boosting_cross_entropy(LOGITS, LABELS, HALF),
            TypeError,
            "k must be a whole",
        ),
        (
            lambda: gradient_boosting_cross_entropy(LOGITS, LABELS, 3, rest_weight=-1),
            ValueError,
            r"rest_weight must be in \[0, 1\], got -1",
        ),
        (
            lambda: jax.jit(gradient_boosting_cross_entropy)(LOGITS, LABELS, 3),
            TypeError,
            "k must be a whole number that is not traced",
        ),
        (lambda: center_loss(FEATURES, LOGITS, LABELS), ValueError, "must have the same D"),
        (lambda: entropy(LOGITS[0]), ValueError, r"logits must be \[B, C\]"),
        (lambda: pairwise_confusion(LOGITS, LABELS, ONE), ValueError, r"counts must be \[B\]"),
        (
            lambda: large_margin_gaussian_mixture(
                LOGITS, FEATURES, CENTERS, LABELS, margin=-1, likelihood_weight=0
            ),
            ValueError,
            "margin must be at least 0, got -1",
        ),
    ],
)
def test_what_is_refused_is_named(
    call: Callable[[], Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        call()


def test_draws_of_whole_probabilities() -> None:
    """As a config file may write them."""
    draws = draw(KEY, (2, 5, 4, 3), p_peak=0, p_patch=1, patch_size=2)
    assert not draws.peaks.any()
    assert draws.cells.all()

"""The diversification block against the paper's equations 1 to 8."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax import class_scores, diversify, suppression_mask

BLOCK: Any = {"p_peak": 0.5, "p_patch": 0.5, "patch_size": 3}


@st.composite
def blocks(draw: st.DrawFn) -> tuple[jax.Array, np.ndarray, dict]:
    """A key, maps with ties and the block's parameters; odd sizes, G from 1 to beyond the map."""
    # A handful of sizes, because each is compiled anew.
    shape, patch_size = draw(
        st.sampled_from(
            [
                ((2, 14, 14, 3), 3),
                ((3, 7, 5, 2), 2),
                ((1, 6, 9, 4), 3),
                ((2, 5, 3, 1), 4),
                ((2, 1, 8, 2), 1),
            ]
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few distinct values, so that most maps have several peaks.
    maps = rng.integers(-3, 4, shape) * np.float32(draw(st.sampled_from([1.0, 0.37, 1e3])))
    parameters = {
        "p_peak": draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])),
        "p_patch": draw(st.sampled_from([0.0, 0.2, 0.5, 1.0])),
        "patch_size": patch_size,
    }
    return jax.random.key(int(rng.integers(2**31))), maps.astype(np.float32), parameters


def draws_behind(mask: np.ndarray, maps: np.ndarray, patch_size: int) -> tuple:
    """The draws (r of eq. 2, patches of eq. 4) that alone can have led to `mask`."""
    batch, height, width, classes = maps.shape
    peaks = reference.peak_map(maps.astype(np.float64))
    rows, columns = -(-height // patch_size), -(-width // patch_size)
    peak_draws = np.zeros((batch, classes), bool)
    patch_draws = np.zeros((batch, rows, columns, classes), bool)
    for b, i, j, c in np.ndindex(maps.shape):
        if peaks[b, i, j, c]:
            peak_draws[b, c] = mask[b, i, j, c]
        else:
            patch_draws[b, i // patch_size, j // patch_size, c] = mask[b, i, j, c]
    return peak_draws, patch_draws


@settings(max_examples=150, deadline=None)
@given(blocks())
def test_mask_is_one_draw_for_the_peaks_and_one_for_each_patch(block: tuple) -> None:
    key, maps, parameters = block
    mask = np.asarray(suppression_mask(key, maps, **parameters))
    peak_draws, patch_draws = draws_behind(mask, maps, parameters["patch_size"])
    expected = reference.suppression_mask(
        maps.astype(np.float64), peak_draws, patch_draws, parameters["patch_size"]
    )
    np.testing.assert_array_equal(mask, expected)


@settings(max_examples=100, deadline=None)
@given(blocks(), st.sampled_from([0.0, 0.1, 0.2, 0.5]))
def test_values_and_gradients_follow_equation_7(block: tuple, alpha: float) -> None:
    key, maps, parameters = block
    mask = np.asarray(suppression_mask(key, maps, **parameters))
    cotangent = np.random.default_rng(0).normal(size=maps.shape).astype(np.float32)
    suppressed, pullback = jax.vjp(
        lambda m: diversify(key, m, alpha=alpha, **parameters), jnp.asarray(maps)
    )
    expected = reference.diversify(maps.astype(np.float64), mask, alpha)
    np.testing.assert_allclose(suppressed, expected, rtol=1e-6)
    np.testing.assert_allclose(
        pullback(cotangent)[0],
        reference.diversify_gradient(mask, alpha, cotangent.astype(np.float64)),
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        class_scores(suppressed), reference.class_scores(expected), rtol=1e-5, atol=1e-4
    )


@settings(max_examples=50, deadline=None)
@given(blocks(), st.sampled_from(["alpha", "p"]))
def test_alpha_1_and_p_0_are_the_identity_to_the_bit(block: tuple, off: str) -> None:
    key, maps, parameters = block
    maps = maps + np.random.default_rng(1).normal(size=maps.shape).astype(np.float32)
    if off == "p":
        parameters = {**parameters, "p_peak": 0.0, "p_patch": 0.0}
    alpha = 1.0 if off == "alpha" else 0.1
    cotangent = np.random.default_rng(2).normal(size=maps.shape).astype(np.float32)
    out, pullback = jax.vjp(
        lambda m: diversify(key, m, alpha=alpha, **parameters), jnp.asarray(maps)
    )
    assert np.asarray(out).tobytes() == maps.tobytes()
    assert np.asarray(pullback(cotangent)[0]).tobytes() == cotangent.tobytes()


def test_a_traced_alpha_of_1_is_the_identity_too() -> None:
    maps = jax.random.normal(jax.random.key(0), (2, 7, 7, 5))
    out = jax.jit(lambda alpha: diversify(jax.random.key(1), maps, alpha=alpha, **BLOCK))(1.0)
    assert np.asarray(out).tobytes() == np.asarray(maps).tobytes()


@pytest.mark.parametrize(("p_peak", "p_patch"), [(0.5, 0.5), (0.2, 0.7), (0.9, 0.05)])
def test_frequencies_within_four_standard_errors(p_peak: float, p_patch: float) -> None:
    # 14×14 and G = 3: 25 patches, the last ones partial. 128·40·25 = 128,000 patch draws; and
    # 128·40 peak draws from each of 20 keys, 102,400.
    maps = jax.random.normal(jax.random.key(0), (128, 14, 14, 40))
    peaks = np.asarray(maps == maps.max((1, 2), keepdims=True))
    peak_hits, peak_draws = 0, 0
    for seed in range(20):
        mask = np.asarray(
            suppression_mask(
                jax.random.key(seed), maps, p_peak=p_peak, p_patch=p_patch, patch_size=3
            )
        )
        peak_hits += int(mask[peaks].sum())
        peak_draws += int(peaks.sum())
    assert peak_draws >= 1e5
    assert abs(peak_hits / peak_draws - p_peak) < 4 * np.sqrt(p_peak * (1 - p_peak) / peak_draws)

    # One cell of each patch that is not the peak: of the last mask.
    patch_hits, patch_draws = 0, 0
    for i in range(0, 14, 3):
        for j in range(0, 14, 3):
            cell, is_peak = mask[:, i, j], peaks[:, i, j]
            patch_hits += int(cell[~is_peak].sum())
            patch_draws += int((~is_peak).sum())
    assert patch_draws >= 1e5
    tolerance = 4 * np.sqrt(p_patch * (1 - p_patch) / patch_draws)
    assert abs(patch_hits / patch_draws - p_patch) < tolerance


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_draws_are_independent_between_images_patches_and_classes(axis: int) -> None:
    # G = 1 and no interference from peaks: p_peak = p_patch makes every cell Bernoulli(p).
    maps = jax.random.normal(jax.random.key(0), (32, 12, 12, 32))
    mask = suppression_mask(jax.random.key(1), maps, p_peak=0.5, p_patch=0.5, patch_size=1)
    signs = np.moveaxis(np.asarray(mask), axis, 0) * 2.0 - 1
    neighbors = (signs[1:] * signs[:-1]).ravel()
    assert abs(neighbors.mean()) < 4 / np.sqrt(neighbors.size)


def test_peaks_are_drawn_independently_of_patches() -> None:
    maps = jax.random.normal(jax.random.key(0), (256, 2, 2, 256))
    mask = np.asarray(
        suppression_mask(jax.random.key(1), maps, p_peak=0.5, p_patch=0.5, patch_size=2)
    )
    peaks = np.asarray(maps == maps.max((1, 2), keepdims=True))
    peak = (mask & peaks).any((1, 2))
    patch = (mask & ~peaks).any((1, 2))
    agreement = (peak == patch).mean()
    assert abs(agreement - 0.5) < 4 * 0.5 / np.sqrt(peak.size)


def test_same_key_same_mask_and_another_key_another() -> None:
    maps = jax.random.normal(jax.random.key(0), (4, 14, 14, 6))
    one, same, other = (
        np.asarray(suppression_mask(jax.random.key(seed), maps, **BLOCK)) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_no_draw_beyond_one_per_map_and_one_per_patch_and_no_loop() -> None:
    maps = jnp.zeros((2, 14, 7, 5))
    jaxpr = jax.make_jaxpr(lambda m: diversify(jax.random.key(0), m, alpha=0.1, **BLOCK))(maps)
    equations = list(_equations(jaxpr.jaxpr))
    drawn = [eqn.outvars[0].aval.size for eqn in equations if "random_bits" in str(eqn.primitive)]
    assert sorted(drawn) == [2 * 5, 2 * 5 * 3 * 5]  # [B, C]; [B, 5, 3, C]
    assert not {str(eqn.primitive) for eqn in equations} & {"scan", "while"}


def _equations(jaxpr: Any) -> list:
    """All equations, those of inner functions too."""
    found = list(jaxpr.eqns)
    for eqn in jaxpr.eqns:
        for parameter in eqn.params.values():
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                found += _equations(inner)
    return found


def test_a_constant_map_is_all_peak() -> None:
    maps = jnp.ones((64, 4, 4, 8))
    mask = suppression_mask(jax.random.key(0), maps, p_peak=1.0, p_patch=0.0, patch_size=2)
    assert bool(mask.all())
    mask = suppression_mask(jax.random.key(0), maps, p_peak=0.0, p_patch=1.0, patch_size=2)
    assert not bool(mask.any())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"p_peak": 1.5}, "p_peak must be in .0, 1., got 1.5"),
        ({"p_patch": -0.1}, "p_patch must be in .0, 1., got -0.1"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
    ],
)
def test_bad_parameters_are_named(changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        diversify(jax.random.key(0), jnp.zeros((1, 2, 2, 1)), alpha=0.1, **{**BLOCK, **changed})
    with pytest.raises(ValueError, match=r"maps must be \[B, H, W, C\]"):
        diversify(jax.random.key(0), jnp.zeros((2, 2, 1)), alpha=0.1, **BLOCK)

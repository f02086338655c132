"""Confidence, its temperature, coverage and AUROC: against scikit-learn, loops and planted values."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fgr_jax.evaluate import measures
from fgr_jax.evaluate.rejection import (
    Rejection,
    auroc,
    coverage,
    fitted_temperature,
    log_confidences,
)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_auroc_as_scikit_learn(known: int, foreign: int, values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)  # with ties
    ours = rng.integers(0, values, known).astype(np.float64) + 1
    theirs = rng.integers(0, values, foreign).astype(np.float64)
    is_known = np.repeat([1, 0], [known, foreign])
    expected = roc_auc_score(is_known, np.concatenate([ours, theirs]))
    assert auroc(ours, theirs) == pytest.approx(expected, abs=1e-9)


def test_auroc_of_nothing() -> None:
    assert math.isnan(auroc(np.zeros(0), np.ones(3)))


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
def test_the_temperature_is_that_of_the_smallest_loss(scale: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (4000, 6))
    p = measures.probabilities(scores)
    labels = (p.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)  # drawn from the softmax
    found = fitted_temperature(scores * scale, labels)
    assert found == pytest.approx(scale, rel=0.05)  # the labels are those of a calibrated network

    def loss(temperature: float) -> float:
        return float(measures.cross_entropies(scores * scale / temperature, labels).mean())

    # At the minimum of a convex function of 1/T: no lower value on a fine grid.
    grid = [loss(found * factor) for factor in np.linspace(0.9, 1.1, 201)]
    assert loss(found) <= min(grid) + 1e-12
    slope = (loss(found * 1.0001) - loss(found / 1.0001)) / 2e-4
    assert abs(slope) < 1e-6


def test_confidences_keep_what_rounds_to_one_apart() -> None:
    scores = np.array([[100.0, 0.0], [120.0, 0.0], [3.0, 1.0], [1.0, np.nan], [np.inf, 0.0]])
    found = log_confidences(scores, 2.0)
    assert found[1] > found[0] > found[2] > found[3] == found[4] == -np.inf
    assert found[2] == pytest.approx(math.log(1 / (1 + math.exp(-1))), abs=1e-12)
    plain = np.log(measures.probabilities(scores[2:3] / 2).max(axis=1))
    np.testing.assert_allclose(found[2:3], plain, atol=1e-12)


def test_rejecting_a_share_rejects_that_share_of_the_test_images() -> None:
    rng = np.random.default_rng(1)
    scores, labels = rng.normal(0, 3, (200, 4)).astype(np.float32), rng.integers(0, 4, 200)
    rejection = Rejection.of(scores, labels)
    percentiles = rejection.percentiles(scores)
    for share in (0.0, 0.05, 0.5, 1.0):
        assert np.mean(percentiles < share) == pytest.approx(share)
    order = log_confidences(scores, rejection.temperature)
    assert (np.argsort(percentiles) == np.argsort(order)).all()
    assert rejection.percentiles(np.full((1, 4), np.nan)).tolist() == [0]
    again = Rejection.from_json(json.loads(json.dumps(rejection.to_json(), allow_nan=False)))
    np.testing.assert_array_equal(again.percentiles(scores), percentiles)
    broken = Rejection.of(np.full((3, 4), np.nan), np.zeros(3, np.int64))
    assert broken.temperature == 1
    again = Rejection.from_json(json.loads(json.dumps(broken.to_json(), allow_nan=False)))
    assert again.test_confidences.tolist() == [-math.inf] * 3


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"temperature": 1},
        {"temperature": -1, "test_log_confidences": []},
        {"temperature": 1, "test_log_confidences": [-1, -2]},
        {"temperature": None, "test_log_confidences": []},
    ],
)
def test_what_is_no_rejection(value: object) -> None:
    with pytest.raises(ValueError, match=r"it lacks|its values"):
        Rejection.from_json(value)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 150), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_the_curve_of_coverage_by_a_loop(count: int, values: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidences = rng.integers(0, values, count)
    percentiles = np.searchsorted(np.sort(confidences), confidences) / count
    is_correct = rng.random(count) < 0.7
    found = coverage(percentiles, is_correct)
    assert len(found.reject_below) == 100
    for threshold, kept, accuracy in zip(
        found.reject_below, found.kept, found.accuracies, strict=True
    ):
        chosen = [c for p, c in zip(percentiles, is_correct, strict=True) if p >= threshold]
        assert kept == len(chosen) / count
        assert (
            accuracy == pytest.approx(sum(chosen) / len(chosen)) if chosen else np.isnan(accuracy)
        )
    assert found.at(0.0)[0] == 1
    assert found.at(0.0)[1] == pytest.approx(is_correct.mean())
    assert found.at(0.05)[0] == found.kept[5]

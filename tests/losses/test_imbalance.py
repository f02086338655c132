"""Logit adjustment and class weights, against loops in float64."""

import math

import jax
import numpy as np
import pytest

from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.distributed import data_mesh
from fgr_jax.losses.imbalance import class_weights, logit_adjustments
from fgr_jax.losses.interface import Outputs, Targets
from fgr_jax.train.objective import build_objective

COUNTS = np.array([50, 3, 12, 1, 0, 30])  # one class without training images
RNG = np.random.default_rng(0)
SCORES = RNG.normal(0, 3, (8, 6))
LABELS = RNG.integers(0, 6, 8)


def of_the_objective(scores: np.ndarray, **loss: object) -> np.ndarray:
    """The losses of a config, in float64."""
    with jax.enable_x64(True):
        losses = jax.jit(lambda scores: of_the_objective_in_jax(scores, **loss))
        return np.asarray(losses(jax.numpy.asarray(scores)))


def of_the_objective_in_jax(scores: jax.Array, **loss: object) -> jax.Array:
    config = Config()
    for name, value in loss.items():
        setattr(config.loss, name, value)
    mesh = data_mesh(jax.devices()[:1])
    objective = build_objective(config, Calendar.of(config, 10), mesh, COUNTS)
    targets = Targets(jax.numpy.asarray(LABELS), jax.numpy.ones(8, bool), jax.numpy.asarray(0))
    return objective.losses(Outputs(scores, jax.numpy.zeros((8, 1))), targets, {})


def adjusted_by_hand(scores: np.ndarray, strength: float) -> np.ndarray:
    counts = [max(int(n), 1) for n in COUNTS]
    return np.array(
        [
            [s + strength * math.log(n / sum(counts)) for s, n in zip(row, counts, strict=True)]
            for row in scores
        ]
    )


def loss_by_hand(row: np.ndarray, label: int, k: int) -> float:
    """−ln of the softmax over the label and the k classes of the highest scores besides."""
    others = sorted((row[c] for c in range(len(row)) if c != label), reverse=True)[:k]
    return math.log(sum(math.exp(s - row[label]) for s in [row[label], *others]))


@pytest.mark.parametrize("strength", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(("k", "start"), [(5, "never"), (2, "0 steps"), (5, "0 steps")])
def test_logit_adjustment(strength: float, k: int, start: str) -> None:
    found = of_the_objective(SCORES, k=k, gce_start=start, logit_adjustment=strength)
    rows = adjusted_by_hand(SCORES, strength)
    expected = [loss_by_hand(row, label, k) for row, label in zip(rows, LABELS, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_the_hardest_negatives_are_those_of_the_adjusted_scores() -> None:
    scores = np.zeros((8, 6))
    scores[:, 3] = 1.0  # the highest score, of a class of one image in 97
    gradient = jax.jit(
        jax.grad(lambda s: jax.numpy.sum(of_the_objective_in_jax(s, k=1, logit_adjustment=1.0)))
    )(jax.numpy.asarray(scores, jax.numpy.float32))
    rows = adjusted_by_hand(scores, 1.0)
    for row, label, of_row in zip(rows, LABELS, np.asarray(gradient), strict=True):
        hardest = max((c for c in range(6) if c != label), key=lambda c: row[c])
        assert set(np.flatnonzero(of_row)) == {label, hardest}
        assert hardest != 3


@pytest.mark.parametrize("power", [0.5, 1.0])
@pytest.mark.parametrize("start", ["never", "0 steps"])
def test_class_weights(power: float, start: str) -> None:
    found = of_the_objective(SCORES, k=2, gce_start=start, class_weights=power)
    weights = [max(int(n), 1) ** -power for n in COUNTS]
    total = sum(n * weight for n, weight in zip(COUNTS.tolist(), weights, strict=True))
    weights = [weight * sum(COUNTS.tolist()) / total for weight in weights]
    k = 5 if start == "never" else 2
    expected = [
        weights[label] * loss_by_hand(row, label, k)
        for row, label in zip(SCORES, LABELS, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_the_mean_weight_over_the_training_images_is_one() -> None:
    for power in (0.0, 0.3, 1.0):
        weights = class_weights(COUNTS, power)
        assert (COUNTS * weights).sum() / COUNTS.sum() == pytest.approx(1, abs=1e-12)
    contributions = (COUNTS * class_weights(COUNTS, 1.0))[COUNTS > 0]
    np.testing.assert_allclose(contributions, contributions[0])


def test_adjusted_scores_are_fitted_to_balanced_classes() -> None:
    """Where the adjusted softmax is the shares of the classes, the scores themselves are equal."""
    shares = np.maximum(COUNTS, 1) / np.maximum(COUNTS, 1).sum()
    np.testing.assert_allclose(np.log(shares) - logit_adjustments(COUNTS, 1.0), 0, atol=1e-12)


def test_both_off_are_the_losses_to_the_bit() -> None:
    plain = of_the_objective(SCORES, k=2)
    for name in ("logit_adjustment", "class_weights"):
        np.testing.assert_array_equal(of_the_objective(SCORES, k=2, **{name: 0.0}), plain)

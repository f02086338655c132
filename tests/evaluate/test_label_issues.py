"""Labels that look wrong, by the rule of confident learning."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.evaluate.label_issues import label_issues


def random_probabilities(rng: np.random.Generator, count: int, classes: int) -> np.ndarray:
    exponentials = np.exp(rng.normal(0, 2, (count, classes)))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_rule_example_by_example(classes: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    p, labels = random_probabilities(rng, count, classes), rng.integers(0, classes, count)
    thresholds = {}
    for j in range(classes):
        own = [p[i, j] for i in range(count) if labels[i] == j]
        if own:
            thresholds[j] = sum(own) / len(own)
    expected = {}
    for i in range(count):
        # Equal but for the rounding of the mean, as where it is that of a single example.
        reached = [j for j, t in thresholds.items() if p[i, j] >= t - 1e-15]
        label, predicted = labels[i], int(np.argmax(p[i]))
        if reached and max(reached, key=lambda j: p[i, j]) != label != predicted:
            expected[i] = p[i, predicted] - p[i, label]
    found = label_issues(p, labels).tolist()
    assert sorted(found) == sorted(expected)
    margins = [expected[i] for i in found]
    assert margins == sorted(margins, reverse=True)


def test_planted_labels_are_found() -> None:
    rng = np.random.default_rng(0)
    count, classes = 2000, 5
    truth = rng.integers(0, classes, count)
    # A network that is right in 9 of 10, and is more certain of some classes than of others.
    scores = rng.normal(0, 1, (count, classes))
    scores[np.arange(count), truth] += np.array([2.5, 3, 3.5, 4, 5])[truth]
    p = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    planted = rng.permutation(count)[: count // 10]
    labels = truth.copy()
    labels[planted] = (truth[planted] + rng.integers(1, classes, len(planted))) % classes
    found = label_issues(p, labels)
    correct = np.isin(found, planted)
    print(f"precision {correct.mean():.2f}, recall {correct.sum() / len(planted):.2f}")
    assert correct.mean() > 0.95
    assert correct.sum() / len(planted) > 0.7
    assert correct[: len(planted) // 2].all()  # the most certain first


def test_classes_without_images_and_scores_that_are_no_numbers() -> None:
    nan = np.nan
    usual = [[0.9, 0.1, 0], [0.8, 0.2, 0], [0.1, 0.9, 0], [0.05, 0.95, 0]]
    p = np.array([*usual, [nan, nan, nan], [nan, 0.95, 0.05]])
    assert label_issues(p, np.array([0, 0, 1, 0, 1, 2])).tolist() == [3]
    assert label_issues(np.zeros((0, 3)), np.zeros(0, np.int64)).tolist() == []

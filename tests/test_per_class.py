"""Measures for each class, against scikit-learn."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support

from fgr_jax.per_class import confusion_matrix, per_class


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 7), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_as_scikit_learn_measures(classes: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, rng.integers(1, classes + 1), count)  # some classes have no images
    predicted = np.where(rng.random(count) < 0.5, labels, rng.integers(0, classes, count))
    found = per_class(confusion_matrix(labels, predicted, classes))
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    np.testing.assert_allclose(found.precisions, precision, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.recalls, recall, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.f1_scores, f1, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.counts, support)
    of_macro = precision_recall_fscore_support(labels, predicted, average="macro", zero_division=0)
    ours = [found.macro(each) for each in (found.precisions, found.recalls, found.f1_scores)]
    np.testing.assert_allclose(ours, of_macro[:3], rtol=0, atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "y_pred contains classes not in y_true"
        expected = balanced_accuracy_score(labels, predicted)
    assert found.balanced_accuracy == pytest.approx(expected, abs=1e-9)


def test_classes_that_are_never_recognized() -> None:
    names = [f"class {index}" for index in range(9)]
    labels = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7])  # of class 8 there are no images
    found = per_class(confusion_matrix(labels, np.where(labels < 1, 0, 8), 9))
    assert found.never_recognized.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert found.never_recognized_in_words(names) == (
        "7 of 8 classes are never recognized: class 1, class 2, class 3, class 4, class 5 and 2 more"
    )
    one = per_class(confusion_matrix(labels, np.where(labels == 4, 0, labels), 9))
    assert one.never_recognized_in_words(names) == "1 of 8 classes is never recognized: class 4"
    assert per_class(confusion_matrix(labels, labels, 9)).never_recognized_in_words(names) == ""


def test_without_images() -> None:
    nothing = np.zeros(0, np.int64)
    found = per_class(confusion_matrix(nothing, nothing, 3))
    assert found.balanced_accuracy == found.macro(found.f1_scores) == 0

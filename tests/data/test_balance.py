"""The balanced order of training examples."""

import functools
import itertools
import pickle

import numpy as np
import pytest
from absl import flags
from gray_images import GrayImages

from fgr_jax.config import Config, Data, Runtime, validate
from fgr_jax.data.balance import BalancedOrder, class_probabilities
from fgr_jax.data.batch import TrainingBatch
from fgr_jax.data.pipeline import Share, training_batches, visits
from fgr_jax.errors import UserError
from fgr_jax.features.views import view_at

COUNTS = np.array([20, 7, 2, 0, 1])  # images of each class, one of which has none
THREADS = Runtime(decode_threads=2)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS))
EXAMPLES = len(LABELS)


@pytest.fixture(scope="module", autouse=True)
def _flags_are_parsed() -> None:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def assert_same(ours: list[TrainingBatch], theirs: list[TrainingBatch]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])  # type: ignore[literal-required]


def expected_probabilities(balance: float) -> np.ndarray:
    weights = [n ** (1 - balance) if n else 0 for n in COUNTS.tolist()]
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize("balance", [0.0, 0.3, 1.0])
def test_probabilities(balance: float) -> None:
    found = class_probabilities(LABELS, balance)
    np.testing.assert_allclose(found, expected_probabilities(balance), rtol=1e-12)


@pytest.mark.parametrize("balance", [1e-9, 0.5, 1.0])
@pytest.mark.parametrize("place", [None, 0, 13])
def test_frequencies_within_four_standard_errors(balance: float, place: int | None) -> None:
    """Of whole epochs, and of one position of all epochs, which are independent draws."""
    epochs = 3000
    order = BalancedOrder(LABELS, balance, seed=3, epochs=epochs)
    examples = np.stack([order.visits(epoch)[:, 0] for epoch in range(epochs)])
    chosen = examples if place is None else examples[:, place]
    probabilities = expected_probabilities(balance)
    frequencies = np.bincount(LABELS[chosen].ravel(), minlength=5) / chosen.size
    errors = np.sqrt(probabilities * (1 - probabilities) / chosen.size)
    assert (np.abs(frequencies - probabilities) <= 4 * errors + 1e-12).all()
    # All images of a class are equally frequent.
    of_images = np.bincount(chosen.ravel(), minlength=EXAMPLES) / chosen.size
    shares = probabilities[LABELS] / COUNTS[LABELS]
    assert (np.abs(of_images - shares) <= 4 * np.sqrt(shares * (1 - shares) / chosen.size)).all()


@pytest.mark.parametrize("balance", [0.4, 1.0])
def test_an_epoch_has_every_class_and_image_as_often_as_it_should(balance: float) -> None:
    order = BalancedOrder(LABELS, balance, seed=1, epochs=40)
    expected = EXAMPLES * expected_probabilities(balance)
    numbers: dict[int, list[int]] = {}
    for epoch in range(40):
        visited = order.visits(epoch)
        assert visited.shape == (EXAMPLES, 2)
        of_classes = np.bincount(LABELS[visited[:, 0]], minlength=5)
        assert (np.abs(of_classes - expected) < 1).all()
        of_images = np.bincount(visited[:, 0], minlength=EXAMPLES)
        for label in np.flatnonzero(COUNTS):
            assert np.ptp(of_images[label == LABELS]) <= 1
        for example, number in visited[np.lexsort(visited.T[::-1])].tolist():
            numbers.setdefault(example, []).append(number)
    # A later visit has a higher number, and a frequent class has that of the epoch.
    assert all(each == sorted(set(each)) for each in numbers.values())
    frequent = [each for example, each in numbers.items() if LABELS[example] == 0]
    assert max(each[-1] for each in frequent) <= 39
    # The only image of a class is seen in all views equally often.
    views = [view_at(0, 3, 0, number) for number in numbers[int(np.flatnonzero(LABELS == 4)[0])]]
    assert np.ptp(np.bincount(views)) <= len(views) // 10


def test_it_is_a_function_of_seed_and_position() -> None:
    order = BalancedOrder(LABELS, 0.7, seed=5, epochs=4)
    whole = [order[position] for position in range(len(order))]
    assert len(whole) == 4 * EXAMPLES
    backwards = pickle.loads(pickle.dumps(order))
    assert [backwards[position] for position in reversed(range(len(order)))] == whole[::-1]
    longer = BalancedOrder(LABELS, 0.7, seed=5, epochs=9)
    assert [longer[position] for position in range(len(order))] == whole
    other = BalancedOrder(LABELS, 0.7, seed=6, epochs=4)
    assert [other[position] for position in range(len(order))] != whole
    epochs = [whole[start : start + EXAMPLES] for start in range(0, len(order), EXAMPLES)]
    assert all(one != other for one, other in itertools.combinations(epochs, 2))


def test_nobody_changes_the_batches() -> None:
    """Neither the threads, the worker processes and the processes, nor the step it begins at."""
    source, data = (
        GrayImages(EXAMPLES),
        Data(name="gray", resize=8, crop=6, augmentation="dihedral", balance=0.8),
    )
    reading = functools.partial(training_batches, source, data, seed=0, labels=LABELS)
    steps = range(9)  # two epochs and a half
    expected = list(reading(THREADS, Share(8), steps=steps))
    order = BalancedOrder(LABELS, 0.8, seed=0, epochs=3)
    rows = [order[position].example for position in range(72)]
    assert [batch["label"].tolist() for batch in expected] == np.reshape(rows, (9, 8)).tolist()
    # Each visit of an image has a crop and a symmetry of its own.
    single = int(np.flatnonzero(LABELS == 4)[0])
    symmetries = [
        symmetry
        for batch in expected
        for symmetry, image in zip(batch["symmetry"], batch["label"], strict=True)
        if image == single
    ]
    assert len(symmetries) > 10
    assert len(set(symmetries)) > 3
    for runtime in (Runtime(decode_threads=7), Runtime(decode_threads=1, decode_workers=2)):
        assert_same(list(reading(runtime, Share(8), steps=steps)), expected)
    assert_same(list(reading(THREADS, Share(8), steps=range(5, 9))), expected[5:])
    halves = [list(reading(THREADS, Share(8, process, 2), steps=steps)) for process in (0, 1)]
    for whole, *both in zip(expected, *halves, strict=True):
        for name in ("image", "label", "symmetry"):
            joined = np.concatenate([half[name] for half in both])
            np.testing.assert_array_equal(joined, whole[name])


def test_without_balance_nothing_is_needed() -> None:
    order = visits(10, 0.0, None, Share(4), seed=0, steps=range(6))
    found = [order[position] for position in range(24)]
    assert sorted(visit.example for visit in found[:10]) == list(range(10))
    assert [visit.number for visit in found] == [0] * 10 + [1] * 10 + [2] * 4
    with pytest.raises(ValueError, match="needs the label of every example"):
        visits(10, 0.5, LABELS, Share(4), seed=0, steps=range(6))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.balance": 1.5}, "data.balance=1.5: must be between 0 and 1"),
        ({"data.balance": 0.5, "loss.class_weights": 1.0}, "0 with data.balance: both make up"),
        ({"loss.logit_adjustment": 1.0, "loss.class_weights": 1.0}, "0 with loss.class_weights"),
        ({"loss.logit_adjustment": 1.0, "loss.lgm": 0.1, "loss.gce_start": "never"}, "loss.lgm"),
        ({"loss.class_weights": 1.0, "loss.objective": "own.py:f"}, "0 with loss.objective"),
    ],
)
def test_what_does_not_go_together(fields: dict[str, object], message: str) -> None:
    config = Config()
    config.data.name = "synthetic/tiny"
    for name, value in fields.items():
        section, _, field = name.partition(".")
        setattr(getattr(config, section), field, value)
    with pytest.raises(UserError, match=message):
        validate(config)

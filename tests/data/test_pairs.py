"""The order of training examples in pairs of a class."""

import functools
import pickle

import numpy as np
import pytest
from absl import flags
from gray_images import GrayImages

from fgr_jax.config import Config, Data, Runtime, validate
from fgr_jax.data.pairs import PairedOrder
from fgr_jax.data.pipeline import Share, training_batches, visits
from fgr_jax.errors import UserError

COUNTS = np.array([20, 7, 2, 0, 1])  # images of each class, one of which has none
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), COUNTS))
ROUND = 20 + 8 + 2 + 2
THREADS = Runtime(decode_threads=2)


def test_a_round_has_every_image_in_a_pair() -> None:
    order = PairedOrder(LABELS, seed=1, positions=40 * ROUND)
    numbers: dict[int, list[int]] = {}
    partners = set()
    for number in range(40):
        visited = order.visits(number)
        assert visited.shape == (ROUND, 2)
        first, second = visited[::2, 0], visited[1::2, 0]
        np.testing.assert_array_equal(LABELS[first], LABELS[second])
        assert (first != second).sum() == ROUND // 2 - 1  # but for the only image of its class
        partners |= {tuple(sorted(pair)) for pair in visited[:, 0].reshape(-1, 2).tolist()}
        of_images = np.bincount(visited[:, 0], minlength=len(LABELS))
        assert of_images.min() == 1
        assert sorted(LABELS[of_images == 2].tolist()) == [1, 4]
        for example, visit in visited[np.lexsort(visited.T[::-1])].tolist():
            numbers.setdefault(example, []).append(visit)
    assert all(each == sorted(set(each)) for each in numbers.values())
    assert len(partners) > 180  # of 190, 21, 1 and 1


def test_it_is_a_function_of_seed_and_position() -> None:
    order = PairedOrder(LABELS, seed=5, positions=100)
    whole = [order[position] for position in range(len(order))]
    backwards = pickle.loads(pickle.dumps(order))
    assert [backwards[position] for position in reversed(range(100))] == whole[::-1]
    longer = PairedOrder(LABELS, seed=5, positions=500)
    assert [longer[position] for position in range(100)] == whole
    other = PairedOrder(LABELS, seed=6, positions=100)
    assert [other[position] for position in range(100)] != whole


def test_nobody_changes_the_batches() -> None:
    """Neither the threads and the processes, nor the step it begins at."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    source = GrayImages(len(LABELS))
    data = Data(name="gray", resize=8, crop=6, pairs=True)
    reading = functools.partial(training_batches, source, data, seed=0, labels=LABELS)
    expected = list(reading(THREADS, Share(8), steps=range(9)))
    order = PairedOrder(LABELS, seed=0, positions=72)
    rows = [order[position].example for position in range(72)]
    assert [batch["label"].tolist() for batch in expected] == np.reshape(rows, (9, 8)).tolist()
    later = list(reading(Runtime(decode_threads=1), Share(8), steps=range(5, 9)))
    halves = [list(reading(THREADS, Share(8, p, 2), steps=range(9))) for p in range(2)]
    for step, batch in enumerate(expected):
        for name in ("image", "label", "symmetry"):
            joined = np.concatenate([half[step][name] for half in halves])
            np.testing.assert_array_equal(joined, batch[name])
            if step >= 5:
                np.testing.assert_array_equal(later[step - 5][name], batch[name])


def test_labels_are_needed() -> None:
    with pytest.raises(ValueError, match="needs the label of every example"):
        visits(30, 0.0, None, Share(8), seed=0, steps=range(9), pairs=True)


@pytest.mark.parametrize(
    ("section", "name", "value", "message"),
    [
        ("data", "balance", 0.5, "pairs=True: must be False with data.balance"),
        ("data", "mixup", 0.5, "pairs=True: must be False with mixed images"),
        ("", "batch_size", 15, "pairs=True: must be False where batch_size is odd"),
    ],
)
def test_what_goes_with_no_pairs(section: str, name: str, value: float, message: str) -> None:
    config = Config()
    config.data.name, config.data.pairs = "cub", True
    validate(config)
    setattr(getattr(config, section) if section else config, name, value)
    with pytest.raises(UserError, match=message):
        validate(config)

"""A balanced order of training examples: rare classes are sampled more often than they occur."""

import functools
from typing import NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt

from fgr_jax.random_streams import Stream, stream_seed


class Visit(NamedTuple):
    """A position in the order of a run: an example, and which of its visits this is."""

    example: int
    # Increases from visit to visit of an example. Where its class is sampled no more often than it
    # occurs, this is the number of the epoch.
    number: int


def class_probabilities(labels: npt.NDArray[np.integer], balance: float) -> npt.NDArray[np.float64]:
    """Returns the probability of each class, proportional to n_c^(1 − balance) for n_c > 0 examples.

    Args:
      labels: of the training examples, `[N]`.
      balance: 0 for the probabilities of the training split, 1 for equal ones.

    Returns:
      `[C]` for the C classes up to the largest label; 0 for a class without examples.
    """
    counts = np.bincount(labels).astype(np.float64)
    powers = np.where(counts > 0, np.maximum(counts, 1) ** (1 - balance), 0)
    return powers / powers.sum()


class BalancedOrder:
    """The visits of all epochs in a row, as a function of the seed and the position alone.

    An epoch has as many visits as there are examples, N. Class c has N·p_c of them, rounded up or down
    at random, so that the expected number is exact. They are shared by its examples as evenly as
    possible: all are visited equally often, but for one visit, and which examples have that is drawn
    in each epoch. The visits of an epoch are in random order.

    Args:
      labels: of the N training examples, `[N]`.
      balance: as for `class_probabilities`.
      seed: of the run.
      epochs: their number, which is the length of the order divided by N.
    """

    def __init__(
        self, labels: npt.NDArray[np.integer], balance: float, *, seed: int, epochs: int
    ) -> None:
        self._seed, self._epochs = stream_seed(seed, Stream.BALANCE), epochs
        self._counts = np.bincount(labels)
        # The examples of one class after those of another.
        self._examples = np.argsort(labels, kind="stable")
        self._expected = len(labels) * class_probabilities(labels, balance)
        # The largest number of visits of an example in an epoch, for each class.
        visits = np.ceil(np.ceil(self._expected - 1e-9) / np.maximum(self._counts, 1))
        self._most_visits = np.maximum(visits, 1).astype(np.int64)

    def __len__(self) -> int:
        return self._epochs * len(self._examples)

    def __getitem__(self, position: SupportsIndex) -> Visit:
        epoch, place = divmod(position.__index__(), len(self._examples))
        example, number = _epoch(self, epoch)[place]
        return Visit(int(example), int(number))

    def visits(self, epoch: int) -> npt.NDArray[np.int64]:
        """Returns example and number of each visit of an epoch, `[N, 2]`."""
        generator = np.random.default_rng([self._seed, epoch])
        # Sums of the expected numbers, all shifted by one random number and rounded down, give each
        # class its expected number, rounded up with the probability of its fraction.
        ends = np.floor(np.cumsum(self._expected) + generator.random()).astype(np.int64)
        ends[-1] = len(self._examples)  # whatever was rounded
        chosen = []
        first = 0
        for label, count in enumerate(np.diff(ends, prepend=0)):
            size = int(self._counts[label])
            of_class = generator.permutation(self._examples[first : first + size])
            first += size
            turn, place = np.divmod(np.arange(count), max(size, 1))
            numbers = epoch * self._most_visits[label] + turn
            chosen.append(np.stack([of_class[place], numbers], axis=1))
        return generator.permutation(np.concatenate(chosen), axis=0)


@functools.lru_cache(maxsize=4)
def _epoch(order: BalancedOrder, epoch: int) -> npt.NDArray[np.int64]:
    """Returns `order.visits(epoch)`, of which threads need those of two epochs at a time."""
    return order.visits(epoch)

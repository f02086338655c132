"""An order of training examples in pairs of a class."""

import functools
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt

from fgr_jax.data.balance import Visit
from fgr_jax.random_streams import Stream, stream_seed


class PairedOrder:
    """Visits of which 2i and 2i + 1 are of one class, as a function of the seed and the position alone.

    In each round all examples are paired at random within their classes; of an odd number, one is in two
    pairs, and the only example of a class is paired with itself. The pairs are in random order. Visit
    numbers are twice that of the round, and 1 more for the second visit of an example in it.

    Args:
      labels: of the training examples, `[N]`.
      seed: of the run.
      positions: the length of the order.
    """

    def __init__(self, labels: npt.NDArray[np.integer], *, seed: int, positions: int) -> None:
        self._seed, self._positions = stream_seed(seed, Stream.PAIRS), positions
        # The examples of one class after those of another.
        examples = np.argsort(labels, kind="stable")
        self._classes = np.split(examples, np.cumsum(np.bincount(labels))[:-1])
        self._round = sum(len(each) + len(each) % 2 for each in self._classes)

    def __len__(self) -> int:
        return self._positions

    def __getitem__(self, position: SupportsIndex) -> Visit:
        number, place = divmod(position.__index__(), self._round)
        example, visit = _round(self, number)[place]
        return Visit(int(example), int(visit))

    def visits(self, number: int) -> npt.NDArray[np.int64]:
        """Returns example and number of each visit of a round, `[R, 2]`; R is even."""
        generator = np.random.default_rng([self._seed, number])
        pairs = []
        for of_class in self._classes:
            examples = generator.permutation(of_class)
            again = np.zeros(len(examples), np.int64)
            if len(examples) % 2:
                examples, again = np.append(examples, examples[0]), np.append(again, 1)
            visits = np.stack([examples, 2 * number + again], axis=1)
            pairs.append(visits.reshape(-1, 2, 2))
        return generator.permutation(np.concatenate(pairs), axis=0).reshape(-1, 2)


@functools.lru_cache(maxsize=4)
def _round(order: PairedOrder, number: int) -> npt.NDArray[np.int64]:
    """Returns `order.visits(number)`, of which threads need those of two rounds at a time."""
    return order.visits(number)

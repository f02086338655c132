"""Requests that come together are classified together."""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Pending(Generic[_Item, _Result]):
    """An item whose result is waited for."""

    def __init__(self, item: _Item):
        self.item = item
        self.results: list[_Result] = []  # one, once it is computed
        self.error: Exception | None = None

    @property
    def is_done(self) -> bool:
        return bool(self.results) or self.error is not None


class Batcher(Generic[_Item, _Result]):
    """Collects what is submitted while a batch is being computed, and computes it as the next one.

    Each item is submitted from a thread of its own, and one of these threads computes the batch for the
    others. A single item waits for nothing but the batch before it.

    Args:
      compute: returns a result for each item.
      largest: the largest number of items at once.
    """

    def __init__(self, compute: Callable[[Sequence[_Item]], Sequence[_Result]], largest: int):
        self._compute, self._largest = compute, largest
        self._waiting: list[_Pending[_Item, _Result]] = []
        self._list = threading.Lock()  # held to read or change `_waiting`
        self._computing = threading.Lock()  # held while a batch is computed

    def submit(self, item: _Item) -> _Result:
        """Returns the result for `item`.

        Raises:
          Exception: as of `compute` for the batch.
        """
        ours: _Pending[_Item, _Result] = _Pending(item)
        with self._list:
            self._waiting.append(ours)
        while not ours.is_done:
            with self._computing:
                if not ours.is_done:  # nobody has computed it while this thread waited
                    self._compute_next()
        if ours.error is not None:
            raise ours.error
        return ours.results[0]

    def _compute_next(self) -> None:
        with self._list:
            batch, self._waiting = self._waiting[: self._largest], self._waiting[self._largest :]
        try:
            results = self._compute([each.item for each in batch])
        except Exception as error:
            for each in batch:
                each.error = error
            return
        for each, result in zip(batch, results, strict=True):
            each.results.append(result)

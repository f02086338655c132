"""Work on many items in threads, in order and with bounded memory."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    work: Callable[[_Item], _Result], items: Iterable[_Item], *, threads: int, ahead: int
) -> Iterator[_Result]:
    """Yields `work(item)` for each of `items`, in order, while `threads` threads do the following ones.

    At most `ahead` results are computed or kept besides the one that is yielded. An error of `work` is
    raised in the place of its result.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        pending: collections.deque[Future[_Result]] = collections.deque(
            pool.submit(work, item) for item in itertools.islice(waiting, ahead)
        )
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(work, item) for item in itertools.islice(waiting, 1))
            yield result

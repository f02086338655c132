"""Requests that come together are classified together."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Batcher(Generic[_Item, _Result]):
    """Collects what is submitted while a batch is being computed, and computes it as the next one.

    A single item waits for nothing but the batch before it.

    Args:
      compute: returns a result for each item; runs in a thread of its own.
      largest: the largest number of items at once.
    """

    def __init__(self, compute: Callable[[Sequence[_Item]], Sequence[_Result]], largest: int):
        self._compute, self._largest = compute, largest
        self._waiting: asyncio.Queue[tuple[_Item, asyncio.Future[_Result]]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "classifier")

    async def submit(self, item: _Item) -> _Result:
        """Returns the result for `item`.

        Raises:
          Exception: as of `compute` for the batch.
        """
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        await self._waiting.put((item, result))
        return await result

    async def run(self) -> None:
        """Computes batches until it is canceled."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._largest and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Of a request that was given up, nobody waits for the result.
            batch = [(item, result) for item, result in batch if not result.done()]
            if not batch:
                continue
            items = [item for item, _ in batch]
            try:
                results = await loop.run_in_executor(self._thread, self._compute, items)
            except Exception as error:
                for _, waiting in batch:
                    if not waiting.done():
                        waiting.set_exception(error)
                continue
            for (_, waiting), result in zip(batch, results, strict=True):
                if not waiting.done():
                    waiting.set_result(result)

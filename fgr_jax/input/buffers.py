"""Memory for batches, used again once nobody holds the batch that was in it."""

import collections
from typing import Any

import numpy as np
import numpy.typing as npt

_FREE_AT_MOST = 8  # what is beyond goes back to the system


class ImageBuffers:
    """Arrays of one shape, from any thread.

    A batch is megabytes that the system would have to hand out, and clear, each time anew: a tenth of
    the time that decoding takes. Memory comes back here when the last array that shows it is gone, so it
    is never written to while anybody can read it, JAX included, which may go on computing from it.
    """

    def __init__(self) -> None:
        self._free: collections.deque[npt.NDArray[np.uint8]] = collections.deque(
            maxlen=_FREE_AT_MOST
        )

    def empty(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """An array as from `np.empty`."""
        try:
            block = self._free.pop()
        except IndexError:
            block = np.empty(shape, np.uint8)
        if block.shape != shape:
            block = np.empty(shape, np.uint8)
        return np.asarray(_Lease(block, self._free))

    def __reduce__(self) -> tuple[type["ImageBuffers"], tuple[()]]:
        """A process that decodes has its own."""
        return ImageBuffers, ()


class _Lease:
    """What an array is a view of: NumPy keeps it as the array's base, and that of all views of it."""

    def __init__(self, block: npt.NDArray[np.uint8], free: collections.deque[Any]):
        self.__array_interface__ = block.__array_interface__
        self._block, self._free = block, free

    def __del__(self) -> None:
        self._free.append(self._block)

"""The arrays of a traced function: each is held by a tensor, its axes in some order."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgr_jax.errors import UserError
from fgr_jax.export.jaxpr_to_onnx.tensors import (
    Array,
    Content,
    Size,
    Tensor,
    is_one,
    squeezed,
    transposed,
    unsqueezed,
)


class UnsupportedError(UserError):
    """The function has a primitive, or a form of one, that is not translated."""


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Value:
    """An array of a traced function.

    Its axes need not be stored in their order: images are [B, H, W, C] in JAX, and ONNX convolves
    [B, C, H, W]. A transposition is only written where an operator needs another order.

    Attributes:
      shape: as in JAX.
      content: the tensor or constant. Its sizes are those of `shape`, or 1 where it is broadcast.
      axes: for each axis of `content`, which axis of the array it is; negative for one of size 1 that
        the array does not have. −1 is what was dropped last.
    """

    shape: tuple[Size, ...]
    content: Content
    axes: tuple[int, ...]

    @classmethod
    def of(cls, content: Content, shape: Sequence[Size] | None = None) -> "Value":
        """Returns the value of content whose axes are stored in their order."""
        axes = tuple(range(content.ndim if isinstance(content, np.ndarray) else len(content.shape)))
        return cls(tuple(content.shape if shape is None else shape), content, axes)

    @property
    def constant(self) -> Array | None:
        """The array, if it is known."""
        if isinstance(self.content, Tensor):
            return None
        ordered = self.aligned(range(len(self.shape)))
        assert isinstance(ordered, np.ndarray)
        is_known = all(isinstance(size, int) for size in self.shape)
        return np.broadcast_to(ordered, self.shape) if is_known else None

    @property
    def is_broadcast(self) -> bool:
        """Whether some of its sizes are larger than those that are stored."""
        stored = dict(zip(self.axes, self.content.shape, strict=True))
        return any(is_one(stored[axis]) != is_one(size) for axis, size in enumerate(self.shape))

    @property
    def order(self) -> list[int]:
        """The axes of the array, in the order in which they are stored."""
        return [axis for axis in self.axes if axis >= 0]

    def position(self, axis: int) -> int:
        """Returns where an axis is stored."""
        return self.axes.index(axis)

    def aligned(self, axes: Sequence[int]) -> Content:
        """Returns the content with its axes in another order; a negative one is an axis of size 1."""
        if _places(axes) == _places(self.axes):
            return self.content
        content = squeezed(self.content, [at for at, axis in enumerate(self.axes) if axis < 0])
        wanted = [axis for axis in axes if axis in self.order]
        content = transposed(content, [self.order.index(axis) for axis in wanted])
        return unsqueezed(content, [at for at, axis in enumerate(axes) if axis not in wanted])

    def with_axes(self, shape: Sequence[Size], axes: Mapping[int, int]) -> "Value":
        """Renumbers the axes; those that are not in `axes` must be of size 1, and are dropped."""
        age = int(len(axes) < len(self.order))
        kept = (axes.get(axis, -1) if axis >= 0 else axis - age for axis in self.axes)
        return Value(tuple(shape), self.content, tuple(kept))

    def broadcast(self, shape: Sequence[Size], places: Sequence[int]) -> "Value":
        """Returns the value with more axes, as `jax.lax.broadcast_in_dim`; nothing is copied."""
        axes = [places[axis] if axis >= 0 else axis for axis in self.axes]
        content = self.content
        for axis in range(len(shape)):
            if axis in places:
                continue
            dropped = [each for each in axes if each < 0]
            if dropped:  # as after a reduction that keeps its axes
                axes[axes.index(max(dropped))] = axis
                continue
            # Behind the axis before it, so that axes in their order stay in it.
            before = [at for at, each in enumerate(axes) if each < axis]
            place = max(before) + 1 if before else 0
            content = unsqueezed(content, [place])
            axes.insert(place, axis)
        return Value(tuple(shape), content, tuple(axes))


def _places(axes: Sequence[int]) -> list[int]:
    """Returns axes without the ages of those that are dropped."""
    return [max(axis, -1) for axis in axes]


def layout_of(values: Sequence[Value]) -> tuple[int, ...]:
    """Returns the order of axes that an elementwise operator of `values` has.

    It is that of the largest tensor; of equal ones, that of one whose axes are not in their order: the
    next convolution needs them so.
    """

    def rank(value: Value) -> tuple[bool, int, float, bool]:
        sizes = value.content.shape
        known = math.prod(size for size in sizes if isinstance(size, int))
        unknown = sum(not isinstance(size, int) for size in sizes)
        is_reordered = value.order != sorted(value.order)
        return isinstance(value.content, Tensor), unknown, known, is_reordered

    whole = max(len(value.shape) for value in values)
    return max((value for value in values if len(value.shape) == whole), key=rank).axes


def materialized(value: Value, batch: Tensor, batch_size: Any) -> Value:
    """Returns the value with all of its sizes stored.

    Args:
      value: the value.
      batch: the number of images, int64 `[1]`.
      batch_size: the symbolic dimension of that number.
    """
    if not value.is_broadcast:
        return value
    shape = tuple(1 if axis < 0 else value.shape[axis] for axis in value.axes)
    if not isinstance(value.content, Tensor) and all(isinstance(size, int) for size in shape):
        return Value(value.shape, np.broadcast_to(value.content, shape), value.axes)
    parts: list[Content] = []
    for size in shape:
        if isinstance(size, int):
            parts.append(np.array([size], np.int64))
        elif size == batch_size:
            parts.append(batch)
        else:
            raise UnsupportedError(f"an array with {size} rows")
    sizes = Tensor("Concat", tuple(parts), (len(parts),), np.dtype(np.int64), {"axis": 0})
    content = Tensor("Expand", (value.content, sizes), shape, value.content.dtype)
    return Value(value.shape, content, value.axes)

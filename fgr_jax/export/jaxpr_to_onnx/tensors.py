"""Expressions of ONNX operators.

A graph is what its outputs are made of: an expression that nothing uses any more is not written.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Size = Any  # an int, or a symbolic dimension that depends on the number of images

# x · scale + shift, with constants; written as Mul and Add where neither is part of another operator.
AFFINE = "Affine"
INPUT = "Input"


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Tensor:
    """The output of an operator.

    Attributes:
      op: the operator's name in ONNX, `AFFINE` or `INPUT`.
      inputs: tensors and constants. All floats are written as float32.
      shape: of the output.
      dtype: likewise.
      attributes: of the operator.
    """

    op: str
    inputs: tuple[Any, ...]
    shape: tuple[Size, ...]
    dtype: Any
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Content = Tensor | Array


def elementwise(op: str, *inputs: Content, dtype: Any = None, **attributes: Any) -> Tensor:
    """Applies an operator to inputs of the same rank, or scalars, whose sizes of 1 are broadcast."""
    shape = broadcast_shape([each.shape for each in inputs])
    return Tensor(op, inputs, shape, dtype or inputs[0].dtype, attributes)


def affine(x: Tensor, scale: Any = 1.0, shift: Any = 0.0) -> Tensor:
    """Computes x · scale + shift with constants of the rank of `x`, or scalars."""
    constants = tuple(np.asarray(each, np.float64) for each in (scale, shift))
    constants = tuple(each.reshape(()) if each.size == 1 else each for each in constants)
    shape = broadcast_shape([x.shape, *(each.shape for each in constants)])
    return Tensor(AFFINE, (x, *constants), shape, x.dtype)


def stored_dtype(dtype: Any) -> np.dtype:
    """Returns the dtype in the file: all floats are float32."""
    dtype = np.dtype(dtype)
    is_float = np.issubdtype(dtype, np.floating) or dtype.name == "bfloat16"
    return np.dtype(np.float32) if is_float else dtype


def is_one(size: Size) -> bool:
    """Returns whether a size is 1 for every number of images."""
    return isinstance(size, int) and size == 1


def broadcast_shape(shapes: Sequence[Sequence[Size]]) -> tuple[Size, ...]:
    """Returns the shape of an elementwise operator's output."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(
        next((size for size in sizes if not is_one(size)), 1) for sizes in zip(*padded, strict=True)
    )


def transposed(x: Content, order: Sequence[int]) -> Content:
    """Returns `x` with its axes in another order."""
    order = tuple(order)
    if order == tuple(range(len(order))):
        return x
    if not isinstance(x, Tensor):
        return x.transpose(order)
    if x.op == "Transpose":
        return transposed(x.inputs[0], [x.attributes["perm"][axis] for axis in order])
    shape = tuple(x.shape[axis] for axis in order)
    return Tensor("Transpose", (x,), shape, x.dtype, {"perm": order})


def squeezed(x: Content, axes: Sequence[int]) -> Content:
    """Returns `x` without some of its axes, of size 1."""
    if not axes:
        return x
    if not isinstance(x, Tensor):
        return np.squeeze(x, tuple(axes))
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    return Tensor("Squeeze", (x, np.array(sorted(axes), np.int64)), shape, x.dtype)


def unsqueezed(x: Content, axes: Sequence[int]) -> Content:
    """Returns `x` with more axes of size 1, which are `axes` of the result."""
    if not axes:
        return x
    if not isinstance(x, Tensor):
        return np.expand_dims(x, tuple(axes))
    sizes = iter(x.shape)
    rank = len(x.shape) + len(axes)
    shape = tuple(1 if axis in axes else next(sizes) for axis in range(rank))
    return Tensor("Unsqueeze", (x, np.array(sorted(axes), np.int64)), shape, x.dtype)


def sliced(x: Tensor, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """Returns the part start:stop:step of an axis; slices of several axes become one operator."""
    if (start, stop, step) == (0, x.shape[axis], 1):
        return x
    size = len(range(start, stop, step))
    parts = {axis: (start, stop, step)}
    if x.op == "Slice" and axis not in x.inputs[3]:
        starts, stops, axes, steps = x.inputs[1:]
        rows = zip(axes, starts, stops, steps, strict=True)
        parts = {int(at): (int(a), int(b), int(c)) for at, a, b, c in rows} | parts
        whole = x.inputs[0]
    else:
        whole = x
    columns = [list(column) for column in zip(*parts.values(), strict=True)]
    constants = [np.array(each, np.int64) for each in (*columns[:2], list(parts), columns[2])]
    shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
    return Tensor("Slice", (whole, *constants), shape, x.dtype)

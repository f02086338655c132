"""Convolutions, matrix products and pooling."""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fgr_jax.export.jaxpr_to_onnx.tensors import Array, Content, Size, Tensor, affine
from fgr_jax.export.jaxpr_to_onnx.values import UnsupportedError, Value

Primitive = Callable[[Any, Any, Sequence[Value]], Value]


def _convolution(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    params, shape = equation.params, equation.outvars[0].aval.shape
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or any(each != 1 for each in params["lhs_dilation"]):
        raise UnsupportedError("rows between others, or groups of images")
    images, kernel = (
        translation.materialized(value).aligned(order)
        for value, order in zip(values, (numbers.lhs_spec, numbers.rhs_spec), strict=True)
    )
    padding = params["padding"]
    if any(each < 0 for pair in padding for each in pair):
        raise UnsupportedError("negative padding")
    attributes = {
        "kernel_shape": kernel.shape[2:],
        "strides": tuple(params["window_strides"]),
        "pads": tuple(before for before, _ in padding) + tuple(after for _, after in padding),
        "dilations": tuple(params["rhs_dilation"]),
        "group": params["feature_group_count"],
    }
    stored = tuple(shape[axis] for axis in numbers.out_spec)
    content = Tensor("Conv", (images, kernel), stored, images.dtype, attributes)
    return Value(shape, content, tuple(numbers.out_spec))


def _dot_general(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    contracting, batch = equation.params["dimension_numbers"]
    shape = equation.outvars[0].aval.shape
    left, right = (translation.materialized(value) for value in values)
    is_simple = len(contracting[0]) == 1
    if is_simple and not batch[0]:
        matrix = right.constant
        if matrix is not None and matrix.ndim == 2:
            matrix = matrix if contracting[1][0] == 0 else matrix.T
            return _with_matrix(left, contracting[0][0], matrix, shape)
        matrix = left.constant
        if matrix is not None and matrix.ndim == 2:
            matrix = matrix if contracting[0][0] == 0 else matrix.T
            rank = len(shape)
            swapped = _with_matrix(right, contracting[1][0], matrix, (*shape[1:], shape[0]))
            return swapped.with_axes(shape, {axis: (axis + 1) % rank for axis in range(rank)})
    free = [
        [axis for axis in range(len(each.shape)) if axis not in (*contracting[side], *batch[side])]
        for side, each in enumerate((left, right))
    ]
    if is_simple and len(free[0]) == len(free[1]) == 1:
        lhs = left.aligned((*batch[0], *free[0], *contracting[0]))
        rhs = right.aligned((*batch[1], *contracting[1], *free[1]))
        return Value.of(Tensor("MatMul", (lhs, rhs), shape, lhs.dtype))
    return _einsum(left, right, contracting, batch, free, shape)


def _einsum(
    left: Value, right: Value, contracting: Any, batch: Any, free: Any, shape: Sequence[Size]
) -> Value:
    """Multiplies and sums along any axes."""
    letters = iter(string.ascii_letters)
    names: list[dict[int, str]] = [{}, {}]
    for pairs in (batch, contracting):
        for axes in zip(*pairs, strict=True):
            letter = next(letters)
            for side, axis in enumerate(axes):
                names[side][axis] = letter
    for side, axes in enumerate(free):
        names[side] |= {axis: next(letters) for axis in axes}
    result = "".join(names[0][axis] for axis in batch[0])
    result += "".join(names[side][axis] for side in (0, 1) for axis in free[side])
    terms = ["".join(each[axis] for axis in sorted(each)) for each in names]
    contents = tuple(each.aligned(range(len(each.shape))) for each in (left, right))
    equation = {"equation": f"{terms[0]},{terms[1]}->{result}"}
    return Value.of(Tensor("Einsum", contents, tuple(shape), contents[0].dtype, equation))


def _with_matrix(value: Value, axis: int, matrix: Array, shape: Sequence[Size]) -> Value:
    """Multiplies one axis of size K with a constant [K, N]; the new axis is the last one.

    Where channels are stored in front of rows and columns, it is a 1×1 convolution.
    """
    free = [each for each in range(len(value.shape)) if each != axis]
    places = {each: place for place, each in enumerate(free)} | {axis: len(free)}
    stored = value.axes
    if len(value.shape) == 4 and stored.index(axis) == 1 and min(stored) >= 0:
        order = [places[each] for each in stored]
        kernel = np.ascontiguousarray(matrix.T)[:, :, None, None]
        product = _pointwise(value.content, kernel, [shape[each] for each in order])
        return Value(tuple(shape), product, tuple(order))
    ordered = [each for each in value.order if each != axis]
    content = value.aligned([*ordered, axis])
    order = [places[each] for each in (*ordered, axis)]
    product = Tensor("MatMul", (content, matrix), tuple(shape[i] for i in order), content.dtype)
    return Value(tuple(shape), product, tuple(order))


def _pointwise(x: Content, kernel: Array, shape: Sequence[Size]) -> Tensor:
    """Returns a 1×1 convolution; rows and columns that were left out before become its stride."""
    strides = [1, 1]
    if isinstance(x, Tensor) and x.op == "Slice" and isinstance(x.inputs[0], Tensor):
        starts, stops, axes, steps = (np.asarray(each).tolist() for each in x.inputs[1:])
        whole = x.inputs[0]
        reaches = [
            # The convolution has as many rows as the slice.
            len(range(0, whole.shape[axis], step)) == len(range(start, stop, step))
            for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True)
            if axis > 1
        ]
        if set(axes) <= {2, 3} and not any(starts) and all(reaches):
            for axis, step in zip(axes, steps, strict=True):
                strides[axis - 2] = step
            x = whole
    attributes = {
        "kernel_shape": (1, 1),
        "strides": tuple(strides),
        "pads": (0, 0, 0, 0),
        "dilations": (1, 1),
        "group": 1,
    }
    return Tensor("Conv", (x, kernel), tuple(shape), x.dtype, attributes)


def _pooling(op: str) -> Primitive:
    def translated(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
        params, shape = equation.params, equation.outvars[0].aval.shape
        window, padding = params["window_dimensions"], params["padding"]
        strides, dilations = params["window_strides"], params["window_dilation"]
        is_used = [
            window[axis] > 1 or strides[axis] > 1 or any(padding[axis])
            for axis in range(len(shape))
        ]
        unused = [axis for axis, used in enumerate(is_used) if not used]
        if any(each != 1 for each in params["base_dilation"]) or len(unused) < 2:
            raise UnsupportedError("rows between others, or windows over images or channels")
        if any(each < 0 for pair in padding for each in pair):
            raise UnsupportedError("negative padding")
        outer = [unused[0], unused[-1]]
        pooled = [axis for axis in range(len(shape)) if axis not in outer]
        order = (*outer, *pooled)
        pads = [[padding[axis][end] for axis in pooled] for end in (0, 1)]
        attributes: dict[str, Any] = {
            "kernel_shape": tuple(window[axis] for axis in pooled),
            "strides": tuple(strides[axis] for axis in pooled),
            "pads": (*pads[0], *pads[1]),
        }
        dilation = tuple(dilations[axis] for axis in pooled)
        size = 1
        if op == "MaxPool":
            attributes["dilations"] = dilation
        elif any(each != 1 for each in dilation):
            raise UnsupportedError("dilated windows")
        else:
            attributes["count_include_pad"] = 1
            size = int(np.prod(attributes["kernel_shape"]))
        content = translation.materialized(values[0]).aligned(order)
        stored = tuple(shape[axis] for axis in order)
        result = Tensor(op, (content,), stored, content.dtype, attributes)
        # A sum is as many means.
        return Value(shape, result if size == 1 else affine(result, size), order)

    return translated


PRIMITIVES: Mapping[str, Primitive] = {
    "conv_general_dilated": _convolution,
    "dot_general": _dot_general,
    "reduce_window_max": _pooling("MaxPool"),
    "reduce_window_sum": _pooling("AveragePool"),
}

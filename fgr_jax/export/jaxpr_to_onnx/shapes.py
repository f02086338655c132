"""Primitives that move, select or reduce elements."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fgr_jax.export.jaxpr_to_onnx.tensors import (
    Content,
    Tensor,
    is_one,
    sliced,
)
from fgr_jax.export.jaxpr_to_onnx.values import UnsupportedError, Value, layout_of

Primitive = Callable[[Any, Any, Sequence[Value]], "Value | list[Value]"]

# Of constants, too, these only change how the array is read.
WITHOUT_COPIES = ("broadcast_in_dim", "transpose")


def _broadcast_in_dim(_: Any, equation: Any, values: Sequence[Value]) -> Value:
    params = equation.params
    return values[0].broadcast(params["shape"], params["broadcast_dimensions"])


def _transpose(_: Any, equation: Any, values: Sequence[Value]) -> Value:
    order = equation.params["permutation"]
    axes = {axis: place for place, axis in enumerate(order)}
    return values[0].with_axes([values[0].shape[axis] for axis in order], axes)


def _squeeze(_: Any, equation: Any, values: Sequence[Value]) -> Value:
    return _without_axes(values[0], equation.params["dimensions"])


def _without_axes(value: Value, axes: Sequence[int]) -> Value:
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]
    places = {axis: place for place, axis in enumerate(kept)}
    return value.with_axes([value.shape[axis] for axis in kept], places)


def _reshape(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    value, shape = values[0], equation.params["new_sizes"]
    ones = [axis for axis, size in enumerate(value.shape) if is_one(size)]
    places = [place for place, size in enumerate(shape) if not is_one(size)]
    whole = _without_axes(value, ones)
    if whole.shape == tuple(shape[place] for place in places):
        return whole.broadcast(shape, places)
    whole = translation.materialized(value)
    unknown = [size for size in shape if not isinstance(size, int)]
    if len(unknown) > 1:
        raise UnsupportedError("several sizes that depend on the number of images")
    sizes = np.array([size if isinstance(size, int) else -1 for size in shape], np.int64)
    content = whole.aligned(range(len(value.shape)))
    return Value.of(Tensor("Reshape", (content, sizes), tuple(shape), content.dtype))


def _concatenate(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    return _joined(translation, equation, values, equation.params["dimension"])


def _stack(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    shape, new = values[0].shape, equation.params["axis"]
    places = [axis + (axis >= new) for axis in range(len(shape))]
    with_one = (*shape[:new], 1, *shape[new:])
    expanded = [value.broadcast(with_one, places) for value in values]
    return _joined(translation, equation, expanded, new)


def _joined(translation: Any, equation: Any, values: Sequence[Value], dimension: int) -> Value:
    axes = [axis for axis in layout_of(values) if axis >= 0]
    contents = tuple(translation.materialized(value).aligned(axes) for value in values)
    shape = equation.outvars[0].aval.shape
    at = {"axis": axes.index(dimension)}
    stored = tuple(shape[axis] for axis in axes)
    return Value(shape, Tensor("Concat", contents, stored, contents[0].dtype, at), tuple(axes))


def _selected(translation: Any, value: Value, parts: Mapping[int, Sequence[int]]) -> Value:
    """Returns the elements of some axes at the places of ranges or of lists."""
    whole = translation.materialized(value)
    content = _tensor(whole.content)
    for axis, part in parts.items():
        place = whole.position(axis)
        if isinstance(part, range):
            content = sliced(content, place, part.start, part.stop, part.step)
            continue
        stored = list(content.shape)
        stored[place] = len(part)
        inputs = (content, np.array(part, np.int64))
        content = Tensor("Gather", inputs, tuple(stored), content.dtype, {"axis": place})
    shape = [len(parts[axis]) if axis in parts else size for axis, size in enumerate(value.shape)]
    return Value(tuple(shape), content, whole.axes)


def _tensor(content: Content) -> Tensor:
    if isinstance(content, Tensor):
        return content
    return Tensor("Identity", (content,), content.shape, content.dtype)


def _slice(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    params, parts = equation.params, {}
    steps = params["strides"] or (1,) * len(values[0].shape)
    rows = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    for axis, (start, stop, step) in enumerate(rows):
        if isinstance(stop, int):
            parts[axis] = range(start, stop, step)
        elif (start, stop, step) != (0, values[0].shape[axis], 1):
            raise UnsupportedError("a part of the images")
    return _selected(translation, values[0], parts)


def _dynamic_slice(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    value, starts = values[0], [each.constant for each in values[1:]]
    parts = {}
    for axis, (start, size) in enumerate(zip(starts, equation.params["slice_sizes"], strict=True)):
        if not isinstance(size, int) and size == value.shape[axis]:
            continue
        if start is None:
            raise UnsupportedError("places that depend on the image")
        first = min(max(int(start), 0), value.shape[axis] - size)  # as XLA clips it
        parts[axis] = range(first, first + size)
    return _selected(translation, value, parts)


def _split(translation: Any, equation: Any, values: Sequence[Value]) -> list[Value]:
    axis, ends = equation.params["axis"], np.cumsum(equation.params["sizes"])
    pairs = zip([0, *ends[:-1]], ends, strict=True)
    return [_selected(translation, values[0], {axis: range(*map(int, pair))}) for pair in pairs]


def _gather(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    """Translates indexing by known numbers of some axes, such as x[:, ::2, ::2] or x[:, [3, 1, 7]]."""
    value, indices, params = values[0], values[1].constant, equation.params
    numbers = params["dimension_numbers"]
    if indices is None:
        raise UnsupportedError("places that depend on the image")
    if numbers.operand_batching_dims:
        raise UnsupportedError("batches of places")
    parts: dict[int, Sequence[int]] = {}
    varying: dict[int, int] = {}  # axis of the array -> axis of the indices
    for column, axis in enumerate(numbers.start_index_map):
        along, places = _along(indices[..., column])
        size = params["slice_sizes"][axis]
        is_collapsed = axis in numbers.collapsed_slice_dims
        if not (is_collapsed or len(places) == 1):
            raise UnsupportedError("places that are no grid")
        last = int(max(places)) + (1 if is_collapsed else size)
        if min(places) < 0 or last > value.shape[axis]:
            raise UnsupportedError("places outside")
        steps = set(np.diff(places)) or {1}
        is_range = len(steps) == 1 and min(steps) > 0
        parts[axis] = (
            range(int(places[0]), last, int(min(steps))) if is_range else [*map(int, places)]
        )
        if along is not None:
            varying[axis] = along
    sizes = indices.shape[:-1]
    if len(set(varying.values())) != len(varying) or any(
        size != 1 and axis not in varying.values() for axis, size in enumerate(sizes)
    ):
        raise UnsupportedError("places that are no grid")
    return _placed(_selected(translation, value, parts), equation, varying)


def _along(places: Any) -> tuple[int | None, Any]:
    """Returns the only axis that an array varies along, and its values there."""
    axes = [axis for axis, size in enumerate(places.shape) if size > 1]
    for axis in axes:
        others = tuple(slice(None) if each == axis else slice(0, 1) for each in range(places.ndim))
        if np.all(places == places[others]):
            found = places[others].reshape(-1)
            return (axis, found) if len(set(found)) > 1 else (None, found[:1])
    if axes:
        raise UnsupportedError("places that are no grid")
    return None, places.reshape(-1)


def _placed(part: Value, equation: Any, varying: Mapping[int, int]) -> Value:
    """Numbers the axes of what was gathered as those of the result."""
    numbers = equation.params["dimension_numbers"]
    shape = equation.outvars[0].aval.shape
    of_indices = [axis for axis in range(len(shape)) if axis not in numbers.offset_dims]
    collapsed = numbers.collapsed_slice_dims
    kept = [axis for axis in range(len(part.shape)) if axis not in collapsed]
    places = dict(zip(kept, numbers.offset_dims, strict=True))
    places |= {axis: of_indices[along] for axis, along in varying.items() if axis in collapsed}
    missing = [axis for axis in range(len(shape)) if axis not in places.values()]
    rest = [axis for axis in range(len(shape)) if axis not in missing]
    known = part.with_axes(
        [shape[axis] for axis in rest], {axis: rest.index(place) for axis, place in places.items()}
    )
    return known.broadcast(shape, rest)


def _pad(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
    value, filling = translation.materialized(values[0]), values[1].constant
    config = equation.params["padding_config"]
    if filling is None or any(inner for _, _, inner in config):
        raise UnsupportedError("rows between others")
    before, after = (
        [config[axis][end] if axis >= 0 else 0 for axis in value.axes] for end in (0, 1)
    )
    pads = np.array([*before, *after], np.int64)
    shape = equation.outvars[0].aval.shape
    stored = tuple(shape[axis] if axis >= 0 else 1 for axis in value.axes)
    padded = Tensor("Pad", (value.content, pads, filling), stored, value.content.dtype)
    return Value(shape, padded, value.axes)


def _reduction(op: str) -> Primitive:
    def translated(translation: Any, equation: Any, values: Sequence[Value]) -> Value:
        whole, axes = translation.materialized(values[0]), equation.params["axes"]
        places = tuple(sorted(whole.position(axis) for axis in axes))
        content = _tensor(whole.content)
        shape = tuple(1 if at in places else size for at, size in enumerate(content.shape))
        attributes = {"axes": places, "keepdims": 1}
        reduced = Tensor(op, (content,), shape, content.dtype, attributes)
        left = tuple(1 if axis in axes else size for axis, size in enumerate(whole.shape))
        return _without_axes(Value(left, reduced, whole.axes), axes)

    return translated


PRIMITIVES: Mapping[str, Primitive] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "transpose": _transpose,
    "squeeze": _squeeze,
    "reshape": _reshape,
    "concatenate": _concatenate,
    "stack": _stack,
    "slice": _slice,
    "dynamic_slice": _dynamic_slice,
    "split": _split,
    "gather": _gather,
    "pad": _pad,
    **{
        name: _reduction(op)
        for name, op in {
            "reduce_sum": "ReduceSum",
            "reduce_max": "ReduceMax",
            "reduce_min": "ReduceMin",
            "reduce_prod": "ReduceProd",
        }.items()
    },
}

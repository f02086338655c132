"""Elementwise primitives."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax import lax

from fgr_jax.export.jaxpr_to_onnx import normalizations
from fgr_jax.export.jaxpr_to_onnx.tensors import (
    Content,
    Tensor,
    affine,
    elementwise,
    stored_dtype,
)
from fgr_jax.export.jaxpr_to_onnx.values import UnsupportedError, Value, layout_of

Build = Callable[..., Content]
Primitive = Callable[[Any, Any, Sequence[Value]], Value]


def _with(build: Build) -> Primitive:
    """Returns the translation of a primitive that `build` writes for contents in the same layout."""

    def translated(_: Any, equation: Any, values: Sequence[Value]) -> Value:
        axes = layout_of(values)
        content = build(*_aligned(values, axes), **_options(equation))
        return Value(equation.outvars[0].aval.shape, content, axes)

    return translated


def _aligned(values: Sequence[Value], axes: Sequence[int]) -> list[Content]:
    """Returns contents in the same layout, at least one of which is a tensor."""
    contents = [value.aligned(axes) for value in values]
    if not any(isinstance(each, Tensor) for each in contents):  # constants for each image
        contents[0] = elementwise("Identity", contents[0])
    return contents


def _options(equation: Any) -> Mapping[str, Any]:
    wanted = ("y", "new_dtype", "rounding_method")
    return {name: value for name, value in equation.params.items() if name in wanted}


def _is_float(*contents: Content) -> bool:
    return all(stored_dtype(each.dtype) == np.float32 for each in contents)


def _add(x: Content, y: Content) -> Content:
    if (isinstance(x, Tensor) and isinstance(y, Tensor)) or not _is_float(x, y):
        return elementwise("Add", x, y)
    return affine(x, shift=y) if isinstance(x, Tensor) else affine(y, shift=x)  # type: ignore[arg-type]


def _sub(x: Content, y: Content) -> Content:
    if (isinstance(x, Tensor) and isinstance(y, Tensor)) or not _is_float(x, y):
        return elementwise("Sub", x, y)
    if isinstance(x, Tensor):
        return affine(x, shift=-np.asarray(y, np.float64))
    return affine(y, scale=-1, shift=x)  # type: ignore[arg-type]


def _multiply(x: Content, y: Content) -> Content:
    if (isinstance(x, Tensor) and isinstance(y, Tensor)) or not _is_float(x, y):
        return elementwise("Mul", x, y)
    return affine(x, y) if isinstance(x, Tensor) else affine(y, x)  # type: ignore[arg-type]


def _divide(x: Content, y: Content) -> Content:
    if not _is_float(x, y):
        raise UnsupportedError("integers")
    if isinstance(y, Tensor):
        return normalizations.softmax(x, y) or elementwise("Div", x, y)
    return affine(x, 1 / np.asarray(y, np.float64))  # type: ignore[arg-type]


def _maximum(x: Content, y: Content) -> Content:
    for tensor, bound in ((x, y), (y, x)):
        if isinstance(bound, Tensor) or not isinstance(tensor, Tensor) or bound.size != 1:
            continue
        if bound.item() == -math.inf:
            return tensor
        if bound.item() == 0 and _is_float(tensor):
            return elementwise("Relu", tensor)
    return elementwise("Max", x, y)


def _minimum(x: Content, y: Content) -> Content:
    for tensor, bound in ((x, y), (y, x)):
        if isinstance(bound, Tensor) or not isinstance(tensor, Tensor) or bound.size != 1:
            continue
        if tensor.op == "Relu" and bound.item() >= 0:
            return _clipped(tensor.inputs[0], 0.0, bound.item())
    return elementwise("Min", x, y)


def _clamp(low: Content, x: Content, high: Content) -> Content:
    return elementwise("Min", elementwise("Max", x, low), high)


def _clipped(x: Content, low: float, high: float) -> Tensor:
    bounds = tuple(np.asarray(each, np.float32) for each in (low, high))
    return Tensor("Clip", (x, *bounds), tuple(x.shape), x.dtype)


def _round(x: Content, *, rounding_method: Any) -> Content:
    if rounding_method != lax.RoundingMethod.TO_NEAREST_EVEN:
        raise UnsupportedError("halves away from zero")
    return elementwise("Round", x)


def _integer_power(x: Content, *, y: int) -> Content:
    if y == 2:
        return elementwise("Mul", x, x)
    return elementwise("Pow", x, np.asarray(y, np.float32))


def _cast(x: Content, *, new_dtype: Any) -> Content:
    wanted = stored_dtype(new_dtype)
    return x if stored_dtype(x.dtype) == wanted else elementwise("Cast", x, dtype=wanted)


def _select(condition: Content, *cases: Content) -> Content:
    if len(cases) != 2 or condition.dtype != np.bool_:
        raise UnsupportedError("more than two cases")
    return elementwise("Where", condition, cases[1], cases[0], dtype=cases[0].dtype)


def _compared(op: str, x: Content, y: Content, *, negated: bool = False) -> Content:
    result = elementwise(op, x, y, dtype=np.dtype(np.bool_))
    return elementwise("Not", result) if negated else result


def _named(op: str) -> Primitive:
    return _with(functools.partial(elementwise, op))


def _mul(_: Any, equation: Any, values: Sequence[Value]) -> Value:
    axes, shape = layout_of(values), equation.outvars[0].aval.shape
    x, y = _aligned(values, axes)
    for one, other in ((x, y), (y, x)):
        found = normalizations.layer_norm(one, other)
        if found:
            normal, order = found
            return Value(shape, normal, tuple(axes[axis] for axis in order))
    return Value(shape, _multiply(x, y), axes)


def _unchanged(_: Any, __: Any, values: Sequence[Value]) -> Value:
    return values[0]


# The names of the primitives of `jax.lax`.
PRIMITIVES: Mapping[str, Primitive] = {
    "add": _with(_add),
    "sub": _with(_sub),
    "mul": _mul,
    "div": _with(_divide),
    "neg": _with(lambda x: affine(x, -1) if _is_float(x) else elementwise("Neg", x)),
    "max": _with(_maximum),
    "min": _with(_minimum),
    "clamp": _with(_clamp),
    "square": _with(lambda x: elementwise("Mul", x, x)),
    "integer_pow": _with(_integer_power),
    "pow": _named("Pow"),
    "rsqrt": _with(lambda x: elementwise("Reciprocal", elementwise("Sqrt", x))),
    "exp2": _with(lambda x: elementwise("Exp", affine(x, math.log(2)))),
    "expm1": _with(lambda x: affine(elementwise("Exp", x), shift=-1)),
    "log1p": _with(lambda x: elementwise("Log", affine(x, shift=1))),
    "erfc": _with(lambda x: affine(elementwise("Erf", x), -1, 1)),
    "round": _with(_round),
    "select_n": _with(_select),
    "convert_element_type": _with(_cast),
    "ne": _with(functools.partial(_compared, "Equal", negated=True)),
    **{
        name: _with(functools.partial(_compared, op))
        for name, op in {
            "eq": "Equal",
            "gt": "Greater",
            "ge": "GreaterOrEqual",
            "lt": "Less",
            "le": "LessOrEqual",
        }.items()
    },
    **{
        name: _named(op)
        for name, op in {
            "abs": "Abs",
            "ceil": "Ceil",
            "cos": "Cos",
            "erf": "Erf",
            "exp": "Exp",
            "floor": "Floor",
            "log": "Log",
            "logistic": "Sigmoid",
            "and": "And",
            "or": "Or",
            "not": "Not",
            "sign": "Sign",
            "sin": "Sin",
            "sqrt": "Sqrt",
            "tanh": "Tanh",
        }.items()
    },
    "copy": _unchanged,
    "stop_gradient": _unchanged,
}

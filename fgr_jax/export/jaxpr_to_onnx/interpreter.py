"""Walks through the jaxpr of a function and translates its primitives."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend import core

from fgr_jax.export.jaxpr_to_onnx import contractions, elementwise, shapes
from fgr_jax.export.jaxpr_to_onnx.tensors import INPUT, Tensor
from fgr_jax.export.jaxpr_to_onnx.values import UnsupportedError, Value, materialized

_PRIMITIVES = {**elementwise.PRIMITIVES, **shapes.PRIMITIVES, **contractions.PRIMITIVES}
# Where the primitives that apply another function have it.
_FUNCTIONS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclasses.dataclass(frozen=True, slots=True)
class Translation:
    """What the translations of the primitives have in common."""

    batch: Tensor  # the number of rows of the input, int64 [1]
    batch_size: Any  # its symbolic dimension

    def materialized(self, value: Value) -> Value:
        """Returns a value with all of its sizes stored."""
        return materialized(value, self.batch, self.batch_size)


def translate(
    function: Callable[[jax.Array], Mapping[str, jax.Array]], shape: Sequence[int], dtype: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Translates a function of one array with any number of rows.

    Args:
      function: is traced, not run.
      shape: of one row.
      dtype: of the array.

    Returns:
      The input, and the outputs by their names.

    Raises:
      UnsupportedError: the function has a primitive that is not translated; the message names it.
    """
    (batch_size,) = export.symbolic_shape("batch")
    traced = jax.jit(function).trace(jax.ShapeDtypeStruct((batch_size, *shape), dtype))
    image = Tensor(INPUT, (), (batch_size, *shape), np.dtype(dtype))
    counted = Tensor("Shape", (image,), (1,), np.dtype(np.int64), {"start": 0, "end": 1})
    translation = Translation(counted, batch_size)
    # Constants are evaluated here, whatever device the run is on.
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        results = _evaluated(translation, traced.jaxpr, [Value.of(image)])
    names = sorted(traced.out_info)  # as JAX flattens a dict
    return image, {
        name: _as_tensor(translation.materialized(value))
        for name, value in zip(names, results, strict=True)
    }


def _as_tensor(value: Value) -> Tensor:
    content = value.aligned(range(len(value.shape)))
    if isinstance(content, Tensor):
        return content
    return Tensor("Identity", (content,), content.shape, content.dtype)


def _evaluated(
    translation: Translation, closed: core.ClosedJaxpr, arguments: Sequence[Value]
) -> list[Value]:
    """Returns the outputs of a jaxpr."""
    values: dict[core.Var, Value] = {}

    def read(atom: Any) -> Value:
        if not isinstance(atom, core.Var):  # a literal
            return Value.of(np.asarray(atom.val, atom.aval.dtype))
        return values[atom]

    jaxpr = closed.jaxpr
    values.update(
        zip(jaxpr.constvars, (Value.of(np.asarray(c)) for c in closed.consts), strict=True)
    )
    values.update(zip(jaxpr.invars, arguments, strict=True))
    for equation in jaxpr.eqns:
        results = _applied(translation, equation, [read(atom) for atom in equation.invars])
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _applied(translation: Translation, equation: Any, values: Sequence[Value]) -> Sequence[Value]:
    """Returns the outputs of one primitive."""
    name, params = equation.primitive.name, equation.params
    if name == "platform_index":  # of `jax.lax.platform_dependent`: what is for no certain platform
        platforms = params["platforms"]
        default = next(
            (at for at, each in enumerate(platforms) if each is None), len(platforms) - 1
        )
        return [Value.of(np.asarray(default, np.int32))]
    if name == "cond":
        index = values[0].constant
        if index is None:
            raise UnsupportedError("cond with a condition that depends on the image")
        return _evaluated(translation, params["branches"][int(index)], values[1:])
    if name == "dim_as_value" and params["dim"] == translation.batch_size:
        count = Tensor("Squeeze", (translation.batch,), (), translation.batch.dtype)
        return [Value.of(Tensor("Cast", (count,), (), np.dtype(np.int32)))]
    for field in _FUNCTIONS:
        inner = params.get(field)
        if name not in ("scan", "while") and hasattr(inner, "eqns"):
            closed = inner if hasattr(inner, "consts") else core.ClosedJaxpr(inner, ())
            return _evaluated(translation, closed, values)
    constants = [value.constant for value in values]
    has_known_shapes = all(
        isinstance(size, int) for out in equation.outvars for size in out.aval.shape
    )
    is_lazy = name in shapes.WITHOUT_COPIES
    if has_known_shapes and all(each is not None for each in constants) and not is_lazy:
        return _computed(equation, constants)
    if name not in _PRIMITIVES:
        raise UnsupportedError(name)
    try:
        result = _PRIMITIVES[name](translation, equation, values)
    except UnsupportedError as error:
        raise UnsupportedError(f"{name} with {error}") from error
    return result if isinstance(result, list) else [result]


def _computed(equation: Any, constants: Sequence[Any]) -> list[Value]:
    """Returns the outputs of a primitive of constants, computed by JAX."""
    arrays = map(jax.numpy.asarray, constants)
    results = equation.primitive.bind(*arrays, **equation.params)
    outputs = results if equation.primitive.multiple_results else [results]
    return [Value.of(np.asarray(each)) for each in outputs]

"""Softmax and LayerNorm, which are one operator each, recognized by what they are computed from."""

import math

import numpy as np

from fgr_jax.export.jaxpr_to_onnx.tensors import AFFINE, Content, Tensor, transposed


def softmax(numerator: Content, denominator: Tensor) -> Tensor | None:
    """Returns the softmax, if exp(x − max x) is divided by its sum along an axis."""
    if not isinstance(numerator, Tensor) or numerator.op != "Exp":
        return None
    shifted = numerator.inputs[0]
    if not isinstance(shifted, Tensor) or shifted.op != "Sub":
        return None
    x, highest = shifted.inputs
    axis = _reduced(denominator, "ReduceSum", numerator)
    if axis is None or _reduced(highest, "ReduceMax", x) != axis or not isinstance(x, Tensor):
        return None
    return Tensor("Softmax", (x,), x.shape, x.dtype, {"axis": axis})


def layer_norm(centered: Content, factor: Content) -> tuple[Tensor, list[int]] | None:
    """Returns LayerNorm without its bias, if centered · factor is (x − mean) · (scale / deviation).

    Returns:
      The tensor and the order of the axes of x in it: the operator normalizes the last one.
    """
    centering = _centered(centered)
    if centering is None or not isinstance(factor, Tensor):
        return None
    x, axis = centering
    scale = np.ones(())
    if factor.op == AFFINE and isinstance(factor.inputs[0], Tensor):
        _, scale, shift = factor.inputs
        if np.any(shift) or any(size != 1 for size in _without(scale.shape, axis)):
            return None
        factor = factor.inputs[0]
    epsilon = _epsilon(factor, x, axis)
    size = x.shape[axis]
    if epsilon is None:
        return None
    order = [*_without(range(len(x.shape)), axis), axis]
    ordered = transposed(x, order)
    weight = np.broadcast_to(np.asarray(scale).reshape(-1), (size,))
    attributes = {"axis": -1, "epsilon": epsilon}
    bias = np.zeros(size)
    normal = Tensor(
        "LayerNormalization", (ordered, weight, bias), ordered.shape, x.dtype, attributes
    )
    return normal, order


def _epsilon(factor: Tensor, x: Tensor, axis: int) -> float | None:
    """Returns ε, if `factor` is 1 / √(variance of x + ε)."""
    for op in ("Reciprocal", "Sqrt"):
        if factor.op != op or not isinstance(factor.inputs[0], Tensor):
            return None
        factor = factor.inputs[0]
    if factor.op != AFFINE:
        return None
    variance, scale, shift = factor.inputs
    squares = _mean(variance)
    if squares is None or scale != 1 or shift.shape != () or squares[1] != axis:
        return None
    square = squares[0]
    if square.op != "Mul" or square.inputs[0] is not square.inputs[1]:
        return None
    centering = _centered(square.inputs[0])
    if centering is None or centering[0] is not x or centering[1] != axis:
        return None
    return float(shift)


def _centered(difference: Content) -> tuple[Tensor, int] | None:
    """Returns x and the axis, if `difference` is x minus its mean along one axis."""
    if not isinstance(difference, Tensor) or difference.op != "Sub":
        return None
    x, mean = difference.inputs
    found = _mean(mean)
    return found if found and found[0] is x else None


def _mean(mean: Content) -> tuple[Tensor, int] | None:
    """Returns x and the axis, if `mean` is the mean of x along one axis, which is kept."""
    if not isinstance(mean, Tensor) or mean.op != AFFINE:
        return None
    total, scale, shift = mean.inputs
    if not isinstance(total, Tensor) or scale.shape != () or np.any(shift):
        return None
    x = total.inputs[0] if total.inputs else None
    axis = _reduced(total, "ReduceSum", x)
    if axis is None or not isinstance(x, Tensor) or not isinstance(x.shape[axis], int):
        return None
    return (x, axis) if math.isclose(scale * x.shape[axis], 1, rel_tol=1e-12) else None


def _reduced(reduction: Content, op: str, x: Content | None) -> int | None:
    """Returns the axis, if `reduction` is that of `x` along one axis."""
    if not isinstance(reduction, Tensor) or reduction.op != op or reduction.inputs[0] is not x:
        return None
    axes = reduction.attributes["axes"]
    return axes[0] if len(axes) == 1 else None


def _without(items: "range | tuple[int, ...]", place: int) -> list[int]:
    return [item for at, item in enumerate(items) if at != place]

"""Makes constant factors and summands part of the operators before them.

This is the folding of BatchNorm into convolutions, of LayerScale into matrix products, and of the
constants of a mean into the mean.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from fgr_jax.export.jaxpr_to_onnx.tensors import AFFINE, Array, Content, Tensor, affine


def simplified(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns tensors with the same values, up to rounding, from fewer operators."""
    tensors = list(in_order(outputs.values()))
    uses = collections.Counter(
        id(each) for tensor in tensors for each in tensor.inputs if isinstance(each, Tensor)
    )
    uses.update(id(tensor) for tensor in outputs.values())
    rebuilt: dict[int, Tensor] = {}
    used_once: set[int] = set()  # of what is rebuilt

    def of(content: Content) -> Content:
        return rebuilt[id(content)] if isinstance(content, Tensor) else content

    for tensor in tensors:
        inputs = tuple(of(each) for each in tensor.inputs)
        new = dataclasses.replace(tensor, inputs=inputs) if inputs else tensor
        if tensor.op == AFFINE:
            new = _folded(new, used_once)
        rebuilt[id(tensor)] = new
        (used_once.add if uses[id(tensor)] == 1 else used_once.discard)(id(new))
    return {name: rebuilt[id(tensor)] for name, tensor in outputs.items()}


def in_order(outputs: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yields each tensor that the outputs are computed from once, after its inputs."""
    seen: set[int] = set()
    waiting = [(tensor, False) for tensor in reversed(list(outputs))]
    while waiting:
        tensor, is_ready = waiting.pop()
        if is_ready:
            yield tensor
        elif id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.append((tensor, True))
            waiting += [
                (each, False) for each in reversed(tensor.inputs) if isinstance(each, Tensor)
            ]


def _folded(tensor: Tensor, used_once: set[int]) -> Tensor:
    """Returns x · scale + shift as part of what computes x, if possible.

    If x has other uses as well, it stays as it is: it would be computed twice.
    """
    x, scale, shift = tensor.inputs
    assert isinstance(x, Tensor)
    assert not isinstance(scale, Tensor)
    assert not isinstance(shift, Tensor)
    if tensor.shape == x.shape and np.all(scale == 1) and not np.any(shift):
        return x
    if id(x) not in used_once:
        return tensor
    if x.op == AFFINE:
        together = _merged(x, scale, shift)
        return _folded(together, used_once) if together else tensor
    found = _FOLDS[x.op](x, scale, shift) if x.op in _FOLDS else None
    return found if found and found.shape == tensor.shape else tensor


def _merged(x: Tensor, scale: Array, shift: Array) -> Tensor | None:
    """Returns both as one, unless its constants are larger: a row and a column make a table."""
    inner, first_scale, first_shift = x.inputs
    assert isinstance(inner, Tensor)
    together = affine(inner, first_scale * scale, first_shift * scale + shift)
    given = max(each.size for each in (first_scale, first_shift, scale, shift))
    sizes = (np.size(each) for each in together.inputs[1:])
    return together if max(sizes) <= given else None


def _into_convolution(x: Tensor, scale: Array, shift: Array) -> Tensor | None:
    kernel = x.inputs[1]
    if isinstance(kernel, Tensor):
        return None
    rank, channels = len(x.shape), x.shape[1]
    factors, summands = (_along(each, 1, rank, channels) for each in (scale, shift))
    if factors is None or summands is None:
        return None
    bias = x.inputs[2] if len(x.inputs) > 2 else np.zeros(channels)
    scaled = _scaled(kernel, factors.reshape(-1, *[1] * (kernel.ndim - 1)))
    return dataclasses.replace(x, inputs=(x.inputs[0], scaled, bias * factors + summands))


def _into_product(x: Tensor, scale: Array, shift: Array) -> Tensor | None:
    matrix, rank = x.inputs[1], len(x.shape)
    if isinstance(matrix, Tensor) or matrix.ndim != 2 or np.all(scale == 1):
        return None
    factors = _along(scale, rank - 1, rank, x.shape[-1])
    if factors is None:
        return None
    product = dataclasses.replace(x, inputs=(x.inputs[0], _scaled(matrix, factors)))
    return affine(product, shift=shift) if np.any(shift) else product


def _into_layer_norm(x: Tensor, scale: Array, shift: Array) -> Tensor | None:
    rank, size = len(x.shape), x.shape[-1]
    factors, summands = (_along(each, rank - 1, rank, size) for each in (scale, shift))
    if factors is None or summands is None:
        return None
    source, weight, bias = x.inputs
    inputs = (source, weight * factors, bias * factors + summands)
    return dataclasses.replace(x, inputs=inputs)


def _into_sum(x: Tensor, scale: Array, shift: Array) -> Tensor | None:
    """Returns the mean, if a sum is divided by the number of its terms."""
    source = x.inputs[0]
    assert isinstance(source, Tensor)
    sizes = [source.shape[axis] for axis in x.attributes["axes"]]
    if np.any(shift) or scale.size != 1 or not all(isinstance(size, int) for size in sizes):
        return None
    if not np.isclose(scale.item() * np.prod(sizes), 1, rtol=1e-12):
        return None
    return dataclasses.replace(x, op="ReduceMean")


def _into_erf(x: Tensor, scale: Array, shift: Array) -> Tensor | None:
    """Uses that erf is odd: erfc(−x) is 1 + erf(x), the form of GELU that programs recognize."""
    source = x.inputs[0]
    if not isinstance(source, Tensor) or source.op != AFFINE:
        return None
    inner, factor, summand = source.inputs
    assert isinstance(inner, Tensor)
    if factor.shape != () or factor >= 0 or np.any(summand) or np.any(scale >= 0):
        return None
    positive = dataclasses.replace(x, inputs=(affine(inner, -factor),))
    return affine(positive, -scale, shift)


def _along(constant: Array, axis: int, rank: int, size: int) -> Array | None:
    """Returns a constant as a vector along an axis; None if it varies along others."""
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(each != 1 for at, each in enumerate(shape) if at != axis):
        return None
    return np.broadcast_to(constant.reshape(-1), (size,))


def _scaled(kernel: Array, factors: Array) -> Array:
    if np.all(factors == 1):
        return kernel
    return (kernel.astype(np.float64) * factors).astype(np.float32)


_FOLDS = {
    "Conv": _into_convolution,
    "MatMul": _into_product,
    "LayerNormalization": _into_layer_norm,
    "ReduceSum": _into_sum,
    "Erf": _into_erf,
}

"""Each primitive of JAX as ONNX: onnxruntime computes what JAX computes."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import export, lax
from onnx_files import checked_onnx, operators, run_onnx

from fgr_jax.export.jaxpr_to_onnx.interpreter import _PRIMITIVES
from fgr_jax.export.jaxpr_to_onnx.values import UnsupportedError

few = settings(max_examples=12, deadline=None, derandomize=True)


def check(function: Callable[[Any], Any], x: Any) -> list[str]:
    """Compares both for all rows and for one, and returns the operators of the file."""
    model = checked_onnx(lambda x: {"y": function(x)}, x.shape[1:], x.dtype)
    batches = (x, x[:1])
    all_expected = jax.device_get(jax.jit(lambda xs: [function(x) for x in xs])(batches))
    for rows, expected in zip(batches, all_expected, strict=True):
        found = run_onnx(model, rows)["y"]
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    return operators(model)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


KERNEL, MATRIX, OFFSETS = jnp.asarray(noise(3, 3, 6, 4)), noise(6, 7), noise(6)
WINDOW, PADDING = (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0))
# For images [B, 5, 4, 6].
CASES: dict[str, Callable[[Any], Any]] = {
    "abs": jnp.abs,
    "add": lambda x: (x + OFFSETS) + (1 + x[..., :1]) + 2 * x,
    "and": lambda x: jnp.where((x > 0) & (x < 1), x, 5.0),
    "broadcast_in_dim": lambda x: jnp.broadcast_to(
        x.mean(-1)[:, None, :, :, None], (*x.shape[:1], 2, 5, 4, 3)
    ),
    "ceil": jnp.ceil,
    "clamp": lambda x: lax.clamp(-0.5, x, 0.25),
    "concatenate": lambda x: jnp.concatenate(
        [x, jnp.broadcast_to(OFFSETS, x.shape), x + 1], axis=2
    ),
    "conv_general_dilated": lambda x: lax.conv_general_dilated(
        x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    ),
    "convert_element_type": lambda x: (x > 0).astype(jnp.float32) * x,
    "copy": lambda x: jnp.array(x, copy=True) + 1,
    "cos": jnp.cos,
    "div": lambda x: (x / 3 + 1 / (2 + x * x)) / (OFFSETS + 9) / (1 + x[..., :1] ** 2),
    "dot_general": lambda x: x @ MATRIX,
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (0, 2, 1, 0), (*x.shape[:1], 2, 2, 6)),
    "eq": lambda x: jnp.where(jnp.round(x) == 1, x, 7.0),
    "erf": lax.erf,
    "erfc": lambda x: lax.erfc(-x * 0.7) * x,
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "floor": jnp.floor,
    "gather": lambda x: x[:, ::2, 1::2],
    "ge": lambda x: jnp.where(x >= 0.5, x, -3.0),
    "gt": lambda x: jnp.where(x > 0.5, x, -3.0),
    "integer_pow": lambda x: x**2 + x**3,
    "le": lambda x: jnp.where(x <= 0.5, x, -3.0),
    "log": lambda x: jnp.log(1 + x * x),
    "log1p": lambda x: jnp.log1p(x * x),
    "logistic": jax.nn.sigmoid,
    "lt": lambda x: jnp.where(x < 0.5, x, -3.0),
    "max": lambda x: jnp.maximum(x, 0) + jnp.maximum(x, OFFSETS) + jnp.maximum(0.5, x),
    "min": lambda x: jnp.minimum(x, 0) + jnp.minimum(jnp.maximum(x, 0), 0.5) + jnp.minimum(x, -x),
    "mul": lambda x: (x * OFFSETS) * (0.5 * x[..., :1]),
    "ne": lambda x: jnp.where(jnp.round(x) != 1, x, 7.0),
    "neg": lambda x: -x,
    "not": lambda x: jnp.where(~(x > 0), x, 2.0),
    "or": lambda x: jnp.where((x > 1) | (x < 0), x, 2.0),
    "pad": lambda x: lax.pad(x, 0.5, ((0, 0, 0), (1, 2, 0), (0, -1, 0), (3, 0, 0))),
    "pow": lambda x: (1 + x * x) ** 1.5,
    "reduce_max": lambda x: x.max((1, 2)),
    "reduce_min": lambda x: x.min(3),
    "reduce_prod": lambda x: x.prod(2),
    "reduce_sum": lambda x: x.sum((1, 3)) + jnp.broadcast_to(x[..., :1], x.shape).sum((1, 3)),
    "reduce_window_max": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, WINDOW, WINDOW, PADDING),
    "reduce_window_sum": lambda x: lax.reduce_window(x, 0.0, lax.add, WINDOW, WINDOW, PADDING),
    "reshape": lambda x: x.reshape(-1, 10, 12) + x.reshape(-1, 1, 10, 12)[:, 0],
    "round": jnp.round,
    "rsqrt": lambda x: lax.rsqrt(1 + x * x),
    "select_n": lambda x: lax.select_n(x > 0, x, 2 * x),
    "sign": jnp.sign,
    "sin": jnp.sin,
    "slice": lambda x: lax.slice(
        x.swapaxes(0, 3), (1, 1, 0, 0), (6, 5, 4, x.shape[0]), (2, 1, 3, 1)
    ).swapaxes(0, 3),
    "split": lambda x: sum(jnp.split(x, 3, axis=3)),
    "sqrt": lambda x: jnp.sqrt(x * x),
    "square": jnp.square,
    "squeeze": lambda x: lax.squeeze(x[:, 1:2], (1,)),
    "stack": lambda x: jnp.stack([x, x.mean(-1, keepdims=True) + 0 * x, OFFSETS + 0 * x], axis=2)[
        :, :, :, 1:
    ],
    "stop_gradient": lax.stop_gradient,
    "sub": lambda x: (x - OFFSETS) - (1 - x) - x[..., :1],
    "tanh": jnp.tanh,
    "transpose": lambda x: x.transpose(0, 3, 1, 2),
}


def primitives_of(jaxpr: Any) -> set[str]:
    """The names of all primitives in a jaxpr and in those of its functions."""
    found = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= primitives_of(inner)
    return found


def test_every_primitive_is_tested() -> None:
    assert CASES.keys() == _PRIMITIVES.keys()


@pytest.mark.parametrize("name", CASES)
def test_a_primitive(name: str) -> None:
    (batch,) = export.symbolic_shape("batch")
    traced = jax.jit(CASES[name]).trace(jax.ShapeDtypeStruct((batch, 5, 4, 6), jnp.float32))
    assert name in primitives_of(traced.jaxpr.jaxpr)
    check(CASES[name], noise(3, 5, 4, 6))
    # The same where channels are stored before rows and columns, as after a convolution.
    eye = jnp.eye(6)[None, None]
    numbers = ("NHWC", "HWIO", "NHWC")
    check(
        lambda x: CASES[name](
            lax.conv_general_dilated(x, eye, (1, 1), "SAME", dimension_numbers=numbers)
        ),
        noise(2, 5, 4, 6),
    )


@few
@given(data=st.data())
def test_convolutions(data: st.DataObject) -> None:
    """Of any stride, padding, dilation and groups, in any order of axes."""
    draw = data.draw
    sizes = [draw(st.integers(1, 3)) for _ in range(2)]
    strides = [draw(st.integers(1, 3)) for _ in range(2)]
    dilation = [draw(st.integers(1, 2)) for _ in range(2)]
    padding = [(draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(2)]
    groups = draw(st.sampled_from((1, 2, 4)))
    kernel = noise(*sizes, 4 // groups, 4 * draw(st.integers(1, 2)), seed=draw(st.integers(0, 99)))
    order = draw(st.sampled_from(("NHWC", "NCHW")))
    x = noise(2, 7, 6, 4) if order == "NHWC" else noise(2, 4, 7, 6)
    factors = noise(kernel.shape[-1])
    numbers = (order, "HWIO", order)

    def function(x: Any) -> Any:
        y = lax.conv_general_dilated(
            x,
            kernel,
            strides,
            padding,
            rhs_dilation=dilation,
            dimension_numbers=numbers,
            feature_group_count=groups,
        )
        along = factors if order == "NHWC" else factors[:, None, None]
        return jax.nn.relu((y - along) * along + 0.5)  # as BatchNorm

    written = check(function, x)
    assert "Mul" not in written
    assert "Add" not in written


@few
@given(data=st.data())
def test_pooling(data: st.DataObject) -> None:
    draw = data.draw
    window = [draw(st.integers(1, 3)) for _ in range(2)]
    strides = [draw(st.integers(1, 3)) for _ in range(2)]
    padding = [tuple(draw(st.integers(0, size - 1)) for _ in range(2)) for size in window]
    whole: Any = ((1, *window, 1), (1, *strides, 1), ((0, 0), *padding, (0, 0)))
    x = noise(2, 7, 6, 3)
    check(lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *whole), x)
    check(lambda x: lax.reduce_window(x, 0.0, lax.add, *whole) / np.prod(window), x)


@pytest.mark.parametrize(
    "equation",
    ["bqhd,bkhd->bhqk", "bhqk,bkhd->bqhd", "bqhd,bkhd->bqk", "bqhd,bkhd->bhqd", "bqhd,bqhe->bqd"],
)
def test_products_of_two_tensors(equation: str) -> None:
    left, right = equation.split("->")[0].split(",")
    sizes = dict(zip("bqkhde", (2, 3, 3, 2, 4, 4), strict=True))
    shapes = [[sizes[letter] for letter in each] for each in (left, right)]
    size = int(np.prod(shapes[0][1:]))
    other = int(np.prod(shapes[1][1:]))

    def function(x: Any) -> Any:
        one, two = x[:, :size], x[:, size:]
        return jnp.einsum(
            equation, one.reshape(-1, *shapes[0][1:]), two.reshape(-1, *shapes[1][1:])
        )

    check(function, noise(2, size + other))


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("first", [False, True])
def test_products_with_a_constant(axis: int, first: bool) -> None:
    """Of any axis, the constant before or behind; scales and offsets become part of it."""
    x = noise(2, 5, 4, 6)
    matrix, factors = noise(x.shape[axis], 3), noise(3)

    def function(x: Any) -> Any:
        if first:
            return jnp.tensordot(matrix, x, ((0,), (axis,)))[..., None].swapaxes(0, 1)
        return jnp.tensordot(x, matrix, ((axis,), (0,))) * factors

    assert "Mul" not in check(function, x)


@few
@given(data=st.data())
def test_indexing(data: st.DataObject) -> None:
    """By numbers and by slices with steps: a gather where the number of images is not known."""
    draw = data.draw
    keys: list[Any] = [slice(None)]
    for size in (5, 4, 6):
        start = draw(st.integers(0, size - 1))
        stop = draw(st.integers(start + 1, size))
        keys.append(
            draw(st.sampled_from((start, slice(None), slice(start, stop, draw(st.integers(1, 3))))))
        )
    check(lambda x: x[tuple(keys)] * 2, noise(2, 5, 4, 6))


@pytest.mark.parametrize("axis", [1, 3])
def test_indexing_by_any_numbers(axis: int) -> None:
    def function(x: Any) -> Any:
        return jnp.take(x, np.array([3, 0, 1, 3]), axis=axis, mode="clip") * 2

    assert "Gather" in check(function, noise(2, 5, 4, 6))


def test_shapes_that_only_gain_or_lose_ones_copy_nothing() -> None:
    written = check(
        lambda x: (x.reshape(-1, 5, 1, 4, 6) + 1).reshape(-1, 5, 4, 1, 6), noise(2, 5, 4, 6)
    )
    assert "Reshape" not in written


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (jax.nn.softmax, "Softmax"),
        (lambda x: jax.nn.softmax(x, axis=1), "Softmax"),
        (lambda x: x.mean((1, 2)), "ReduceMean"),
        (jax.nn.relu, "Relu"),
        (jax.nn.relu6, "Clip"),
    ],
)
def test_functions_that_are_one_operator(function: Any, operator: str) -> None:
    written = check(function, noise(2, 5, 4, 6))
    assert [each for each in written if each not in ("Identity", "Squeeze")] == [operator]


def normalized(x: Any, axis: int, epsilon: float, shift: float = 0.0) -> Any:
    mean = x.mean(axis, keepdims=True)
    variance = jnp.square(x - mean).mean(axis, keepdims=True)
    centered = x - mean - shift if shift else x - mean
    return centered * (lax.rsqrt(variance + epsilon) * 1.5) + 0.25


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_layer_norm_is_one_operator_along_any_axis(axis: int) -> None:
    written = check(lambda x: normalized(x, axis, 1e-3), noise(2, 5, 4, 6))
    assert set(written) <= {"LayerNormalization", "Transpose", "Identity"}


def test_what_is_nearly_layer_norm_or_softmax_is_not() -> None:
    def other_mean(x: Any) -> Any:
        return (x - x.mean(3, keepdims=True)) * lax.rsqrt(jnp.square(x).mean(3, keepdims=True) + 1)

    def other_axis(x: Any) -> Any:
        shifted = jnp.exp(x - x.max(3, keepdims=True))
        return shifted / shifted.sum(2, keepdims=True)

    def other_factor(x: Any) -> Any:
        centered = x - x.mean(3, keepdims=True)
        return centered * (lax.rsqrt(jnp.square(centered).mean(3, keepdims=True) + 1) + 2)

    def other_offset(x: Any) -> Any:
        return normalized(x, 3, 1e-3, shift=1.0)

    for function in (other_offset, other_mean, other_axis, other_factor):
        written = check(function, noise(2, 5, 4, 6))
        assert not {"LayerNormalization", "Softmax"} & set(written)


def test_what_is_used_twice_is_computed_once() -> None:
    def function(x: Any) -> Any:
        y = x @ MATRIX
        return (y * noise(7)) * (y + noise(7, seed=1))

    assert check(function, noise(2, 5, 4, 6)).count("MatMul") == 1


def test_what_is_an_output_as_well_is_computed_once() -> None:
    def function(x: Any) -> Any:
        y = x @ MATRIX
        return {"y": y, "z": y * noise(7)}

    model = checked_onnx(function, (5, 4, 6))
    assert operators(model).count("MatMul") == 1
    x = noise(2, 5, 4, 6)
    for name, values in jax.jit(function)(x).items():
        np.testing.assert_allclose(run_onnx(model, x)[name], values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("start", [0, 1])
def test_a_1x1_convolution_of_every_second_cell(start: int) -> None:
    """The stride of a convolution, if it begins with the first cell."""

    def function(x: Any) -> Any:
        numbers = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x, KERNEL, (1, 1), "SAME", dimension_numbers=numbers)
        return y[:, start::2, start::2] @ MATRIX[:4]

    assert ("Slice" in check(function, noise(2, 4, 4, 6))) == (start == 1)


def test_uint8_images_and_constants_for_each_image() -> None:
    def function(x: Any) -> Any:
        tokens = jnp.broadcast_to(noise(1, 2, 3), (x.shape[0], 2, 3)) * 2
        return jnp.concatenate([x.astype(jnp.float32) / 255, tokens], axis=1)

    check(function, np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: jnp.sort(x), r"^sort$"),
        (lambda x: lax.cumsum(x, 1), r"^cumsum$"),
        (lambda x: lax.scan(lambda c, _: (c + x, None), x, None, 3)[0], r"^scan$"),
        (
            lambda x: x[:, jnp.array([0, 1])[:, None] + jnp.array([0, 2])],
            "^gather with places that are no grid$",
        ),
        (
            lambda x: lax.cond(x.sum() > 0, lambda x: x, lambda x: 2 * x, x),
            "^cond with a condition",
        ),
    ],
)
def test_what_is_not_translated_is_named(function: Any, message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        checked_onnx(lambda x: {"y": function(x)}, (4,))


def test_the_order_of_axes_survives_several_dropped_ones() -> None:
    """Axes of size 1 that a reduction leaves are used again for those of the next reduction."""
    for first, second in itertools.permutations((1, 2, 3), 2):

        def function(x: Any, first: int = first, second: int = second) -> Any:
            return jax.nn.softmax(x.mean(first), axis=second - (second > first))

        assert "Softmax" in check(function, noise(2, 5, 4, 6))

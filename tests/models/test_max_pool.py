"""Max-pooling: values and gradients of XLA's own, to the bit, and PyTorch's choice among equals."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.models.backbones.max_pool import max_pool_3x3


def pooled_by_xla(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


@jax.jit
def both(x: jax.Array, gradient: jax.Array) -> Any:
    """The values of ours and of XLA's, each with the gradient of x."""
    found = []
    for function in (max_pool_3x3, pooled_by_xla):
        y, pullback = jax.vjp(function, x)
        found.append((y, pullback(gradient)[0]))
    return found


@settings(max_examples=15, deadline=None)
@given(
    shape=st.sampled_from([(2, 7, 9, 3), (1, 8, 8, 4), (3, 5, 6, 1), (2, 1, 1, 3), (1, 2, 3, 2)]),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16]),
    ties=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_values_and_gradients_are_xlas_to_the_bit(
    shape: tuple, dtype: jnp.dtype, ties: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-2, 3, shape) if ties else rng.normal(size=shape)
    outputs = jax.eval_shape(pooled_by_xla, jax.ShapeDtypeStruct(shape, dtype))
    x, gradient = values.astype(dtype), rng.normal(size=outputs.shape).astype(dtype)
    (ours, back), (theirs, back_by_xla) = jax.device_get(both(x, gradient))
    assert ours.tobytes() == theirs.tobytes()
    np.testing.assert_array_equal(back, back_by_xla)


def test_among_equal_cells_the_first_gets_the_gradient() -> None:
    x = np.array([[0, 5, 0], [5, 5, 0], [0, 0, 0]], np.float32)[None, :, :, None]
    gradient = jax.jit(jax.grad(lambda x: max_pool_3x3(x)[0, 0, 0, 0]))(x)
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0, 1, 0], [0, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("pixels", [1, 2, 7, 8])
def test_half_as_many_rows_and_columns_rounded_up(pixels: int) -> None:
    images = jax.ShapeDtypeStruct((2, pixels, pixels + 3, 5), jnp.float32)
    shape = jax.eval_shape(max_pool_3x3, images).shape
    assert shape == (2, (pixels + 1) // 2, (pixels + 4) // 2, 5)

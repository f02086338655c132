"""Depthwise convolutions: the form for CPUs against XLA's grouped convolution, and the choice."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.backbones.depthwise import Padding, depthwise_convolution, grouped

CASES = [  # height, width, side of the kernel, stride, padding
    (9, 7, 3, 1, ((1, 1), (1, 1))),
    (9, 8, 3, 2, ((1, 1), (0, 1))),
    (13, 10, 5, 2, ((2, 2), (1, 2))),
    (19, 4, 3, 1, ((1, 1), (1, 1))),  # more rows than blocks
    (5, 6, 7, 1, ((3, 3), (3, 3))),
    (1, 2, 5, 2, ((2, 2), (1, 2))),
    (7, 8, 2, 3, ((0, 0), (0, 1))),  # cells that no kernel reaches
]


@pytest.mark.parametrize(
    ("case", "dtype", "tolerance"),
    [
        *((case, np.float64, 1e-14) for case in CASES),
        (CASES[1], np.float32, 1e-6),
        (CASES[1], jnp.bfloat16, 1e-2),
    ],
)
def test_outputs_and_gradients_are_those_of_the_grouped_convolution(
    case: tuple[int, int, int, int, Padding], dtype: Any, tolerance: float
) -> None:
    height, width, side, stride, padding = case
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(2, height, width, 5)), dtype)
        kernel = jnp.asarray(rng.normal(size=(side, side, 1, 5)), dtype)

        def results(convolution: Any, x: jax.Array, kernel: jax.Array) -> list[jax.Array]:
            convolve = functools.partial(convolution, stride=stride, padding=padding)
            y, gradients_of = jax.vjp(convolve, x, kernel)
            gradient = rng_like(y).astype(dtype).astype(y.dtype)
            return [y, *gradients_of(gradient)]

        def rng_like(y: jax.Array) -> jax.Array:
            return jnp.asarray(np.random.default_rng(1).normal(size=y.shape))

        def ours(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
            return depthwise_convolution(x, kernel, stride, padding)

        wide = (x.astype(np.float64), kernel.astype(np.float64))
        exact = jax.jit(functools.partial(results, grouped))(*wide)
        for array, golden in zip(
            jax.jit(functools.partial(results, ours))(x, kernel), exact, strict=True
        ):
            assert array.dtype == dtype
            difference = np.linalg.norm(np.asarray(array, np.float64) - golden)
            assert difference <= tolerance * np.linalg.norm(golden)


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_the_form_follows_the_platform_forwards_and_backwards(platform: str) -> None:
    network = Convolution(6, (3, 3), padding=1, groups=6)
    x = jnp.zeros((1, 5, 5, 6))
    variables = network.init(jax.random.key(0), x)

    def total(variables: Any, x: jax.Array) -> jax.Array:
        y: Any = network.apply(variables, x)
        return y.sum()

    loss = jax.jit(jax.grad(total, argnums=(0, 1)))
    program = loss.trace(variables, x).lower(lowering_platforms=(platform,)).as_text()
    assert program.count("stablehlo.convolution") == (0 if platform == "cpu" else 2)


def test_only_one_kernel_per_channel_is_depthwise() -> None:
    """Two outputs per channel, and two channels per group, are left to XLA."""
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 4))
    for features, groups in ((8, 4), (4, 2)):
        network = Convolution(features, (3, 3), padding=1, groups=groups)
        y, variables = network.init_with_output(jax.random.key(1), x)
        kernel = np.asarray(variables["params"]["kernel"], np.float64)
        of_group, outputs = 4 // groups, features // groups
        patch = np.asarray(x[0, 1:4, 1:4], np.float64)
        for output in range(features):
            channels = slice(output // outputs * of_group, (output // outputs + 1) * of_group)
            expected = (patch[:, :, channels] * kernel[:, :, :, output]).sum()
            np.testing.assert_allclose(y[0, 2, 2, output], expected, rtol=1e-5)

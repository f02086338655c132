"""Products of channels, and their derivative, against NumPy in float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgr_jax.models.backbones.products import Dense, channel_product


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-14), (np.float32, 1e-6), (jnp.bfloat16, 1e-2)]
)
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (2, 3, 4, 5), (0, 5)])
def test_value_and_gradients(shape: tuple[int, ...], dtype: Any, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, kernel, gradient = (
            jnp.asarray(rng.normal(size=size), dtype) for size in (shape, (5, 6), (*shape[:-1], 6))
        )
        y, gradients_of = jax.vjp(channel_product, x, kernel)
        of_x, of_kernel = gradients_of(gradient)
        wide_x, wide_kernel, wide = (np.asarray(each, np.float64) for each in (x, kernel, gradient))
        expected = (
            np.einsum("...c,cf->...f", wide_x, wide_kernel),
            np.einsum("...f,cf->...c", wide, wide_kernel),
            np.einsum("nc,nf->cf", wide_x.reshape(-1, 5), wide.reshape(-1, 6)),
        )
        for ours, exact in zip((y, of_x, of_kernel), expected, strict=True):
            assert ours.dtype == dtype
            assert ours.shape == exact.shape
            difference = np.linalg.norm(np.asarray(ours, np.float64) - exact)
            assert difference <= tolerance * np.linalg.norm(exact)


def test_gradient_of_the_kernel_is_a_product_of_two_matrices() -> None:
    """XLA transposes arrays of more axes."""

    def total(kernel: jax.Array, x: jax.Array) -> jax.Array:
        outputs: Any = Dense(7).apply({"params": {"kernel": kernel, "bias": jnp.zeros(7)}}, x)
        return jnp.sum(outputs**2)

    lowered = jax.jit(jax.grad(total)).lower(jnp.ones((5, 7)), jnp.ones((2, 3, 4, 5)))
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert "tensor<24x5xf32>, tensor<24x7xf32>" in products[-1]

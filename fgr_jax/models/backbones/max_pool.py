"""The ResNet's max-pooling, with a gradient that every device sums in the same order."""

import itertools

import jax
import jax.numpy as jnp

_WINDOW, _STRIDE, _PADDING = 3, 2, 1


@jax.custom_vjp
def max_pool_3x3(x: jax.Array) -> jax.Array:
    """Max-pools 3×3 windows with stride 2, padded by 1: `[B, H, W, C]` to `[B, ⌈H/2⌉, ⌈W/2⌉, C]`.

    The gradient goes to the first maximum of a window, row by row, as in PyTorch. XLA's own gradient
    (select-and-scatter) gives the same bits on a CPU, but on GPUs it has no deterministic form:
    under --xla_gpu_deterministic_ops a program that contains it does not compile.
    """
    return jax.lax.reduce_window(
        x,
        -jnp.inf,
        jax.lax.max,
        (1, _WINDOW, _WINDOW, 1),
        (1, _STRIDE, _STRIDE, 1),
        ((0, 0), (_PADDING, _PADDING), (_PADDING, _PADDING), (0, 0)),
    )


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    maxima = max_pool_3x3(x)
    return maxima, (x, maxima)


def _backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    x, maxima = saved
    batch, height, width, channels = x.shape
    last_row, last_column = (_STRIDE * (count - 1) for count in maxima.shape[1:3])
    none = (0, 0, 0)
    # Pads as far as the last window reaches; the last row or column may be in no window.
    below = last_row + _WINDOW - height - _PADDING
    beside = last_column + _WINDOW - width - _PADDING
    padding = (none, (_PADDING, below, 0), (_PADDING, beside, 0), none)
    padded = jax.lax.pad(x, jnp.asarray(-jnp.inf, x.dtype), padding)

    offsets = list(itertools.product(range(_WINDOW), repeat=2))
    taken = jnp.zeros(maxima.shape, bool)
    shares = {}
    for i, j in offsets:
        cells = jax.lax.slice(
            padded,
            (0, i, j, 0),
            (batch, i + last_row + 1, j + last_column + 1, channels),
            (1, _STRIDE, _STRIDE, 1),
        )
        is_first = (cells == maxima) & ~taken
        taken |= is_first
        shares[i, j] = jnp.where(is_first, gradient, 0)

    total = jnp.zeros(padded.shape, gradient.dtype)
    # From the last offset to the first, so that each cell sums its shares in the order of its windows.
    for i, j in reversed(offsets):
        rows, columns = ((at, _WINDOW - 1 - at, _STRIDE - 1) for at in (i, j))
        around = (none, rows, columns, none)
        total += jax.lax.pad(shares[i, j], jnp.zeros((), gradient.dtype), around)
    return (total[:, _PADDING : _PADDING + height, _PADDING : _PADDING + width],)


max_pool_3x3.defvjp(_forward, _backward)

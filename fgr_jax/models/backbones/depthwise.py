"""Depthwise convolutions: one kernel `[k, k]` for each channel.

XLA's grouped convolution runs on CPUs through loops that are not vectorized. There, a sum over the k·k
shifted and scaled inputs compiles to one loop over all channels. Both forms give the same numbers up to
rounding, forwards and backwards. They are written in `jax.lax`: operators and indexing of arrays take
several times as long to trace, and there are many.
"""

import functools
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

# Zeros before and after the rows, and before and after the columns.
Padding = tuple[tuple[int, int], tuple[int, int]]

# The gradient of the kernel is summed over this many blocks of rows in one unrolled loop. More of them
# take less memory and longer to compile.
_MAX_BLOCKS = 16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise_convolution(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> jax.Array:
    """Convolves `[B, H, W, C]` with `[k, k, 1, C]` to `[B, h, w, C]`, in the form fastest on the device.

    The derivative is defined for reverse mode only.
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(shifted, stride=stride, padding=padding),
        default=functools.partial(grouped, stride=stride, padding=padding),
    )


def grouped(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Computes the convolution as XLA's grouped convolution."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def shifted(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """Computes the convolution as a sum of shifted and scaled inputs, in at least float32."""
    return _sum_of_shifts(_padded(x, padding), kernel, stride).astype(x.dtype)


def shifted_gradients(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, padding: Padding
) -> tuple[jax.Array, jax.Array]:
    """Computes the gradients of `x` and of the kernel, given that of the output of `shifted`."""
    of_x = _gradient_of_input(x, kernel, gradient, stride, padding)
    of_kernel = _gradient_of_kernel(x, kernel, gradient, stride, padding)
    return of_x.astype(x.dtype), of_kernel.astype(kernel.dtype)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return depthwise_convolution(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: Padding, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def of_grouped(
        x: jax.Array, kernel: jax.Array, gradient: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        convolve = functools.partial(grouped, stride=stride, padding=padding)
        gradients: tuple[jax.Array, jax.Array] = jax.vjp(convolve, x, kernel)[1](gradient)
        return gradients

    return jax.lax.platform_dependent(
        *saved,
        gradient,
        cpu=functools.partial(shifted_gradients, stride=stride, padding=padding),
        default=of_grouped,
    )


depthwise_convolution.defvjp(_forward, _backward)


def _sum_of_shifts(padded: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution without padding."""
    rows, columns = kernel.shape[:2]
    height = (padded.shape[1] - rows) // stride + 1
    width = (padded.shape[2] - columns) // stride + 1
    shape = (padded.shape[0], height, width, padded.shape[3])
    taps = jax.lax.reshape(_wide(kernel), (rows * columns, shape[3]))

    def term(i: int, j: int) -> jax.Array:
        tap = jax.lax.index_in_dim(taps, i * columns + j, keepdims=False)
        cells = _wide(_cells(padded, (i, j), (height, width), stride))
        return jax.lax.mul(cells, jax.lax.broadcast_in_dim(tap, shape, (3,)))

    return functools.reduce(jax.lax.add, itertools.starmap(term, _offsets(rows, columns)))


def _gradient_of_input(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, padding: Padding
) -> jax.Array:
    """Returns the transposed convolution, as one convolution for each residue of a cell's position.

    The cells of `x` in row stride·m + residue meet only every `stride`-th row of the kernel.
    """
    batch, height, width, channels = x.shape
    sides = (-(-height // stride), -(-width // stride))
    of_residues = []
    for residues in _offsets(stride, stride):
        around = []
        for axis, residue in enumerate(residues):
            position = residue + padding[axis][0]
            taps = len(range(position % stride, kernel.shape[axis], stride))
            low = taps - 1 - position // stride
            around.append((low, sides[axis] + taps - 1 - low - gradient.shape[1 + axis]))
        first_row, first_column = (
            (residue + padding[axis][0]) % stride for axis, residue in enumerate(residues)
        )
        part = kernel[first_row::stride, first_column::stride][::-1, ::-1]
        if part.size:
            of_residues.append(_sum_of_shifts(_padded(gradient, tuple(around)), part, 1))
        else:  # The kernel is smaller than the stride.
            of_residues.append(jnp.zeros((batch, *sides, channels), x.dtype))
    if stride == 1:
        return of_residues[0]
    cells = jnp.stack(of_residues, axis=3).reshape(batch, *sides, stride, stride, channels)
    cells = cells.transpose(0, 1, 3, 2, 4, 5)
    cells = cells.reshape(batch, sides[0] * stride, sides[1] * stride, channels)
    return cells[:, :height, :width]


def _gradient_of_kernel(
    x: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, padding: Padding
) -> jax.Array:
    """Returns the products of `gradient` and the shifted inputs, summed over images and cells.

    Blocks of rows are summed first, as one loop over all channels, and what is left is then small: XLA's
    loop for a sum over all cells at once is not vectorized.
    """
    height, width = gradient.shape[1:3]
    rows = -(-height // _MAX_BLOCKS)  # of each block
    blocks = -(-height // rows)
    gradient = _wide(_padded(gradient, ((0, blocks * rows - height), (0, 0))))
    missing = (blocks * rows - height) * stride
    (top, bottom), columns = padding
    padded = _padded(x, ((top, bottom + missing), columns))
    of_blocks = jax.lax.split(gradient, blocks * [rows], axis=1)
    of_rows = []
    for i in range(kernel.shape[0]):
        sums = []
        for j in range(kernel.shape[1]):
            terms = (
                jax.lax.mul(
                    _wide(_cells(padded, (first * stride + i, j), (rows, width), stride)), of_block
                )
                for first, of_block in zip(range(0, blocks * rows, rows), of_blocks, strict=True)
            )
            sums.append(functools.reduce(jax.lax.add, terms))
        # Without the barrier, XLA fuses the two sums into one.
        parts = jax.lax.optimization_barrier(jnp.stack(sums))
        of_rows.append(parts.sum((1, 2, 3)))
    return jnp.stack(of_rows).reshape(kernel.shape)


def _padded(x: jax.Array, padding: tuple[tuple[int, int], ...]) -> jax.Array:
    """Returns `[B, H, W, C]` with zeros around the rows and columns, or fewer of them where negative."""
    rows, columns = padding
    around = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
    return jax.lax.pad(x, jnp.zeros((), x.dtype), around)


def _cells(
    padded: jax.Array, first: tuple[int, int], counts: tuple[int, int], stride: int
) -> jax.Array:
    """Returns every `stride`-th of the cells from `first` on, `counts` in rows and columns."""
    starts = (0, *first, 0)
    ends = [start + stride * (count - 1) + 1 for start, count in zip(first, counts, strict=True)]
    limits = (padded.shape[0], *ends, padded.shape[3])
    return jax.lax.slice(padded, starts, limits, (1, stride, stride, 1))


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _offsets(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(rows) for j in range(columns))

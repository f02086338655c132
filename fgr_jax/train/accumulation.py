"""Gradient accumulation: a step whose batch is computed in parts, one after the other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fgr_jax.losses.interface import Outputs

# Maps BatchNorm's statistics, the rows of a part and its number to
# (gradients, (statistics, outputs, totals, digest of the whole batch's draws)).
Compute = Callable[[Any, Any, Any], tuple[Any, tuple[Any, Outputs, Any, jax.Array]]]


def over_parts(
    count: int, compute: Compute, batch_stats: Any, rows: Any
) -> tuple[Any, tuple[Any, Outputs, Any, jax.Array]]:
    """Computes a batch in `count` parts, and returns what `compute` returns for the whole of it.

    Gradients and totals are summed, outputs are in the order of the rows, and each part starts from the
    statistics that the part before it left.

    Args:
      count: number of parts; it divides the number of rows.
      compute: computes a part.
      batch_stats: the statistics that the first part starts from.
      rows: a tree of arrays `[B, ...]`.
    """
    if count == 1:
        return compute(batch_stats, rows, 0)
    parts = jax.tree.map(lambda leaf: jnp.moveaxis(_divided(leaf, count), 1, 0), rows)
    numbers = jnp.arange(count)
    shapes = jax.eval_shape(
        compute, batch_stats, *jax.tree.map(lambda leaf: leaf[0], (parts, numbers))
    )
    sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (shapes[0], shapes[1][2]))

    def step(carry: Any, part: Any) -> Any:
        sums, batch_stats = carry
        gradients, (batch_stats, outputs, totals, digest) = compute(batch_stats, *part)
        return (jax.tree.map(jnp.add, sums, (gradients, totals)), batch_stats), (outputs, digest)

    # XLA's convolutions in a loop are a thousand times slower on CPUs.
    unroll = jax.default_backend() == "cpu"
    (sums, batch_stats), (outputs, digests) = jax.lax.scan(
        step, (sums, batch_stats), (parts, numbers), unroll=unroll
    )
    return sums[0], (batch_stats, _joined(outputs), sums[1], digests[0])


def rows_of_part(rows: Any, number: Any, count: int) -> Any:
    """Returns the rows of a part in a tree of arrays `[B, ...]`, those with r mod `count` = `number`.

    With these strides, the rows of a batch that is spread over devices stay where they are.
    """
    if count == 1:
        return rows
    return jax.tree.map(lambda leaf: _divided(leaf, count)[:, number], rows)


def _divided(leaf: jax.Array, count: int) -> jax.Array:
    """Reshapes `[B, ...]` to `[B / count, count, ...]`."""
    return leaf.reshape(-1, count, *leaf.shape[1:])


def _joined(outputs: Outputs) -> Outputs:
    """Returns the outputs of all rows, in their order, given those of the parts with a leading axis."""

    def joined(leaf: jax.Array) -> jax.Array:
        return jnp.moveaxis(leaf, 0, 1).reshape(-1, *leaf.shape[2:])

    by_row: Outputs = jax.tree.map(joined, outputs._replace(offset=None, class_weights=None))
    # These are functions of the parameters, and the same in all parts.
    fixed = jax.tree.map(lambda leaf: leaf[0], (outputs.offset, outputs.class_weights))
    return by_row._replace(offset=fixed[0], class_weights=fixed[1])

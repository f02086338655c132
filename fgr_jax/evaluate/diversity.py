"""How diverse the evidence in a class activation map is: figure 4 of the paper as numbers.

The *mass* of a cell is max(M, 0). A negative cell is evidence against the class, and zero is a
meaningful level: the gradients of cross-entropy and of GCE sum to 0 over the classes, and weight decay
removes what the classes' maps had in common at the start. So a positive cell is evidence for the class
rather than for the average class. Shifting the map's minimum to 0 instead would let one cell determine
the weight of all others, and give mass to the whole background. A map without a positive cell has no
mass: all its measures are NaN, and it is excluded from means.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

MASS_SHARE = 0.8  # the share of a map's mass that its high region holds
_ROUNDING = 1e-6  # so that rounding adds no cell where cells make up the share exactly


class MapMeasures(NamedTuple):
    """Measures of B maps, each `[B]`; NaN where a map has no mass."""

    area: jax.Array  # the share of the cells that lie in the high region
    entropy: jax.Array  # −Σ p ln p of the map as a distribution p over cells, in nats
    relative_entropy: jax.Array  # entropy / ln(HW): 1 for a uniform map, 0 for a single cell
    parts: jax.Array  # the number of visible parts that lie in the high region


def high_region(activation: jax.Array) -> jax.Array:
    """Finds the smallest set of cells with 80% of the mass, bool `[B, H, W]`; empty without mass.

    Among equal cells, those further up, then further left, come first.
    """
    mass = _mass(activation)
    order = jnp.argsort(-mass, axis=-1, stable=True)
    in_order = jnp.take_along_axis(mass, order, axis=-1)
    before = jnp.cumsum(in_order, axis=-1) - in_order  # the mass of all higher cells
    wanted = (MASS_SHARE - _ROUNDING) * jnp.sum(mass, axis=-1, keepdims=True)
    place = jnp.argsort(order, axis=-1)  # of every cell in that order
    return jnp.take_along_axis(before < wanted, place, axis=-1).reshape(activation.shape)


def measure(
    activation: jax.Array, parts: jax.Array, stride: int, origin: float = 0.0
) -> MapMeasures:
    """Measures one class's map in each of B images.

    Args:
      activation: the maps, `[B, H, W]`.
      parts: x, y, in pixels of the network's input, and visibility (0 or 1) of P parts, `[B, P, 3]`.
      stride: pixels from one cell to the next.
      origin: the row and column of the pixel that the first cell is centered at.
    """
    mass = _mass(activation)
    total = jnp.sum(mass, axis=-1, keepdims=True)
    has_mass = total[:, 0] > 0
    p = mass / total
    entropy = jnp.sum(jnp.where(p > 0, -p * jnp.log(p), 0), axis=-1)
    region = high_region(activation)
    # The cell nearest to each part: the receptive field of cell (i, j) is centered at pixel
    # (origin + stride · i, origin + stride · j).
    _, height, width = activation.shape
    columns, rows = (
        jnp.round((parts[:, :, axis] - origin) / stride).astype(jnp.int32) for axis in (0, 1)
    )
    cells = jnp.clip(rows, 0, height - 1) * width + jnp.clip(columns, 0, width - 1)
    in_region = jnp.take_along_axis(region.reshape(mass.shape), cells, axis=1)
    in_region &= parts[:, :, 2] > 0

    def unless_empty(values: jax.Array) -> jax.Array:
        return jnp.where(has_mass, values, jnp.nan)

    highest_entropy = math.log(mass.shape[-1])
    return MapMeasures(
        area=unless_empty(jnp.mean(region, axis=(1, 2), dtype=jnp.float32)),
        entropy=unless_empty(entropy),
        relative_entropy=unless_empty(entropy / highest_entropy if highest_entropy else entropy),
        parts=unless_empty(jnp.sum(in_region, axis=-1).astype(jnp.float32)),
    )


def _mass(activation: jax.Array) -> jax.Array:
    """Computes the mass of each cell: `[B, H, W]` to `[B, HW]`."""
    return jnp.maximum(activation, 0).reshape(len(activation), -1)

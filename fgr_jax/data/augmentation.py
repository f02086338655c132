"""Random views of training images: crops, which the host cuts, and symmetries, which the devices apply.

Turning an image on the host costs about 2% of reading and decoding it; on a device the cost cannot be
measured beside a training step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.config import Data

MIRROR = 4  # the element of `turned` that exchanges left and right
COUNT = 8


class View(NamedTuple):
    """Which example is read and what is cut out of it, decided before anything is read."""

    example: int | None  # an index into the data set; None: padding
    offsets: tuple[tuple[int, int], ...]  # (top, left) of each crop of the resized image, in pixels
    symmetry: int = 0  # an element of `turned`


def random_view(data: Data, example: int, rng: np.random.Generator) -> View:
    """Draws a crop and a flip, or one of the eight symmetries if `data.augmentation` is "dihedral"."""
    margin = data.resize - data.crop
    top = int(rng.integers(margin, endpoint=True))
    left = int(rng.integers(margin, endpoint=True))
    dihedral = data.augmentation == "dihedral"
    symmetry = rng.integers(COUNT) if dihedral else MIRROR * rng.integers(2)
    return View(example, ((top, left),), int(symmetry))


def turned(images: jax.Array, elements: jax.Array) -> jax.Array:
    """Turns and mirrors square images, each by its own symmetry of the square.

    Args:
      images: `[B, N, N, C]`, of any type.
      elements: int32 `[B]`, in 0..7: modulo `MIRROR` the number of quarter turns, counter-clockwise as
        in `np.rot90`; from `MIRROR` on, left and right are exchanged afterwards. 0 is the identity.

    Returns:
      `[B, N, N, C]`, of the type of `images`.
    """
    elements = elements[:, None, None, None]
    quarter_turns = elements % MIRROR
    images = jnp.where(quarter_turns % 2 == 1, jnp.rot90(images, axes=(1, 2)), images)
    images = jnp.where(quarter_turns >= 2, images[:, ::-1, ::-1], images)
    return jnp.where(elements >= MIRROR, images[:, :, ::-1], images)

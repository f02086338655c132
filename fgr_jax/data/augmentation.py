"""Random views of training images: crops and distortions on the host, symmetries on the devices.

Turning an image on the host adds about 2% to reading and decoding it; on a device the cost is too small
to measure in a training step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.config import Data

MIRROR = 4  # the element of `turned` that flips left and right
COUNT = 8

# Of TrivialAugment, in torchvision's order; `images.distorted` applies them.
OPERATIONS = (
    *("identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness"),
    *("color", "contrast", "sharpness", "posterize", "solarize", "auto_contrast", "equalize"),
)
BINS = 31  # of the strength of an operation


class Place(NamedTuple):
    """The place of a crop on a canvas whose size is not known yet.

    Attributes:
      top: in [0, 1], from the uppermost place to the lowest.
      left: likewise, from left to right.
      is_drawn: whether these are uniform draws from [0, 1), which take every place equally often;
        otherwise 0 is the first place, 1 the last, and a half the center as torchvision rounds it.
    """

    top: float
    left: float
    is_drawn: bool = False


class Distortion(NamedTuple):
    """What TrivialAugment (Müller and Hutter 2021) does to a crop."""

    operation: str  # one of `OPERATIONS`
    bin: int  # of its strength, in [0, BINS)
    is_negative: bool  # the direction, where it has one


class View(NamedTuple):
    """An example and the crops to take from it, chosen before anything is read."""

    example: int | None  # an index into the data set; None: padding
    places: tuple[Place, ...]  # of each crop
    symmetries: tuple[int, ...] = (0,)  # an element of `turned` for each crop
    distortions: tuple[Distortion, ...] = ()  # of each crop, or none at all


def random_view(data: Data, example: int, rng: np.random.Generator) -> View:
    """Draws a crop, and a flip or (if `data.augmentation` is "dihedral") one of eight symmetries.

    If `data.trivial_augment`, a distortion is drawn after them.
    """
    if data.resize_method == "crop":
        # How many places there are is known when the image is read.
        top, left = rng.random(), rng.random()
    else:
        places = data.resize - data.crop + 1
        top, left = ((int(rng.integers(places)) + 0.5) / places for _ in range(2))
    dihedral = data.augmentation == "dihedral"
    symmetry = rng.integers(COUNT) if dihedral else MIRROR * rng.integers(2)
    distortions = (_random_distortion(rng),) if data.trivial_augment else ()
    return View(example, (Place(top, left, is_drawn=True),), (int(symmetry),), distortions)


def _random_distortion(rng: np.random.Generator) -> Distortion:
    operation = OPERATIONS[rng.integers(len(OPERATIONS))]
    return Distortion(operation, int(rng.integers(BINS)), bool(rng.integers(2)))


def turned(images: jax.Array, elements: jax.Array) -> jax.Array:
    """Rotates and flips square images, each by its own symmetry of the square.

    Args:
      images: `[B, N, N, C]`, of any type.
      elements: int32 `[B]`, in 0..7: modulo `MIRROR` the number of quarter turns, counter-clockwise as
        in `np.rot90`; from `MIRROR` on, left and right are flipped afterwards. 0 is the identity.

    Returns:
      `[B, N, N, C]`, of the type of `images`.
    """
    elements = elements[:, None, None, None]
    quarter_turns = elements % MIRROR
    images = jnp.where(quarter_turns % 2 == 1, jnp.rot90(images, axes=(1, 2)), images)
    images = jnp.where(quarter_turns >= 2, images[:, ::-1, ::-1], images)
    return jnp.where(elements >= MIRROR, images[:, :, ::-1], images)

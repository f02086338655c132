"""The eight symmetries of the square, each picture of a batch by its own, on the devices.

Turning a picture on the host costs about 2% of reading and decoding it; on a device it costs nothing
that can be seen beside a training step.
"""

import jax
import jax.numpy as jnp

MIRROR = 4  # the element of `turned` that exchanges left and right
COUNT = 8


def turned(images: jax.Array, elements: jax.Array) -> jax.Array:
    """Turns and mirrors square pictures.

    Args:
      images: `[B, N, N, C]`, of any type.
      elements: int32 `[B]`, in 0..7: so many quarter turns, modulo `MIRROR`, counter-clockwise as
        `np.rot90` counts them; then, from `MIRROR` on, left and right are exchanged. 0 is the identity.

    Returns:
      `[B, N, N, C]`, of the type of `images`.
    """
    elements = elements[:, None, None, None]
    quarter_turns = elements % MIRROR
    images = jnp.where(quarter_turns % 2 == 1, jnp.rot90(images, axes=(1, 2)), images)
    images = jnp.where(quarter_turns >= 2, images[:, ::-1, ::-1], images)
    return jnp.where(elements >= MIRROR, images[:, :, ::-1], images)

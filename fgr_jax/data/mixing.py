"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of neighbors in a batch, on the devices."""

import jax
import jax.numpy as jnp

from fgr_jax.config import Data


def is_mixing(data: Data) -> bool:
    """Returns whether images are mixed."""
    return bool(data.mixup or data.cutmix)


def partners(rows: jax.Array) -> jax.Array:
    """Returns the rows `[B, ...]` of the partners: rows 2i and 2i + 1 are exchanged.

    Both are on the same device if each has an even number of rows.
    """
    pairs = rows.reshape(-1, 2, *rows.shape[1:])
    return pairs[:, ::-1].reshape(rows.shape)


def mixed(
    data: Data, key: jax.Array, images: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mixes each image with its partner, by mixup or CutMix, with one λ and one box for the batch.

    Args:
      data: the α of each; with both, one of them is drawn for the batch, with equal probability.
      key: a `jax.random` key.
      images: `[B, H, W, 3]`.
      mask: bool `[B]`; an image whose partner's is false stays as it is.

    Returns:
      The mixed images, and the share λ of the image itself, `[B]`: with CutMix, of its area.
    """
    which_key, share_key, box_key = jax.random.split(key, 3)
    is_cut = jax.random.bernoulli(which_key) if data.mixup and data.cutmix else bool(data.cutmix)
    alpha = jnp.where(is_cut, data.cutmix, data.mixup)
    share = jax.random.beta(share_key, alpha, alpha)
    outside = _outside_box(box_key, share, images.shape[1:3])
    own = jnp.where(is_cut, outside, share)
    has_partner = partners(mask)
    pixels = jnp.where(has_partner[:, None, None], own, 1)[..., None].astype(images.dtype)
    shares = jnp.where(has_partner, jnp.where(is_cut, jnp.mean(outside), share), 1)
    return pixels * images + (1 - pixels) * partners(images), shares


def _outside_box(key: jax.Array, share: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws a box of √(1 − share) of both sides, cut off at the edges; 0 within it, 1 elsewhere."""
    centers = jax.random.uniform(key, (2,))
    inside = []
    for center, length in zip(centers, shape, strict=True):
        half = jnp.sqrt(1 - share) * length / 2
        inside.append(jnp.abs(jnp.arange(length) + 0.5 - center * length) < half)
    return 1 - (inside[0][:, None] & inside[1]).astype(jnp.float32)

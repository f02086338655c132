"""TASN: the image is sampled again where attention is, as a whole and for a detail.

Zheng, Fu, Zha and Luo, "Looking for the Devil in the Details: Learning Trilinear Attention Sampling
Network for Fine-grained Image Recognition", CVPR 2019. With X the features `[D, N]` of N cells:

- The attention maps (§3.1) are M = softmax(softmax(s·X)·Xᵀ)·X, one for each channel. No gradient is sent
  through them.
- The image is sampled (§3.2) by the average of all maps, which preserves its structure, and in training
  also by one map that is drawn at random, which preserves a detail. Both have half of the image's side.
- The master network is applied to the first and the part network to the second (§3.3). They are the same
  network, and the master learns from the part network's scores, too. Its scores are the predictions.

The loss is the sum of those of master, part and a classifier of the whole image, and of λ times the
cross-entropy of softmax(part / T) and softmax(master / T).
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets
from fgr_jax.models.heads.layers import STREAM, linear
from fgr_jax.models.heads.sampling import attention, relation, sampled

_SCALE = 7.0  # s, of the authors' code; 1 in the paper
_DENSITY = 4.0  # of samples, likewise; not limited in the paper
_WEIGHT = 2.0  # λ
_TEMPERATURE = 10.0  # T


class TasnHead(nn.Module):
    """Maps an image and its features to the scores of its samples.

    Attributes:
      num_classes: C.
    """

    num_classes: int
    param_dtype: Any = jnp.float32

    looks_again: ClassVar[bool] = True
    several_scores: ClassVar[bool] = True

    @nn.compact
    def __call__(
        self,
        features: jax.Array,
        *,
        train: bool,
        images: jax.Array | None,
        features_of: Callable[[jax.Array], jax.Array],
    ) -> Outputs:
        """Maps features `[B, h, w, D]` to the master's scores `[B, C]` and features `[B, D]`.

        Args:
          features: of the images.
          train: whether the part network is applied, too.
          images: normalized, `[B, H, W, 3]`; None where only shapes are wanted.
          features_of: the backbone.

        Returns:
          `branches` has the scores of the whole image ("image", `[B, C]`) and, in training, of the part
          network ("part", `[B, C]`).
        """
        kinds = {"param_dtype": self.param_dtype}
        average = at_least_float32(class_scores(features))
        branches = {"image": linear(self.num_classes, name="image", **kinds)(average)}
        if images is None:
            seen = average[:, None]
        else:
            # Master and part one after the other, so that all of an image stay on its device.
            samples = jnp.stack(self._samples(images, features, train=train), axis=1)
            again = class_scores(features_of(samples.reshape(-1, *samples.shape[2:])))
            seen = at_least_float32(again).reshape(*samples.shape[:2], -1)
        scores = linear(self.num_classes, name="linear", **kinds)(seen)
        if train:
            branches["part"] = scores[:, 1]
        return Outputs(scores[:, 0], seen[:, 0], branches=branches)

    def _samples(self, images: jax.Array, features: jax.Array, *, train: bool) -> list[jax.Array]:
        """Returns the samples that master and, in training, part are given, `[B, H/2, W/2, 3]` each."""
        x = jax.lax.stop_gradient(features)
        rows = relation(x, _SCALE)
        weights = [jnp.mean(rows, axis=1)]
        if train:
            channel = jax.random.randint(self.make_rng(STREAM), x.shape[:1], 0, x.shape[-1])
            is_drawn = jax.nn.one_hot(channel, x.shape[-1], dtype=rows.dtype)
            weights.append(jnp.einsum("bde,bd->be", rows, is_drawn))
        size = images.shape[1] // 2
        return [sampled(images, attention(x, each), size, _DENSITY) for each in weights]

    def objective(self, base: Objective) -> Objective:
        """Returns the sum of the losses; `base` is that of each of the three scores."""

        def losses(outputs: Outputs, targets: Targets, extra: Extra) -> jax.Array:
            branches = outputs.branches
            assert branches is not None
            total = base.losses(outputs, targets, extra)
            for scores in branches.values():
                total += base.losses(outputs._replace(scores=scores), targets, extra)
            return total + _WEIGHT * distillation(outputs.scores, branches["part"])

        return base._replace(losses=losses)


def distillation(master: jax.Array, part: jax.Array) -> jax.Array:
    """Returns −Σ softmax(part / T)·log softmax(master / T), `[B]`, of scores `[B, C]`.

    It has a gradient for both, as in the authors' code.
    """
    of_master = jax.nn.log_softmax(at_least_float32(master) / _TEMPERATURE)
    of_part = jax.nn.softmax(at_least_float32(part) / _TEMPERATURE)
    return -jnp.sum(of_part * of_master, axis=-1)


def from_config(network: Network, num_classes: int) -> TasnHead:
    """Builds the head for the config's section `network`."""
    del network
    return TasnHead(num_classes)

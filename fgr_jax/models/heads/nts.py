"""NTS-Net: a network that proposes regions of the image, looks at them again, and joins what it sees.

Yang, Luo, Wang, Hu, Gao and Wang, "Learning to Navigate for Fine-grained Classification", ECCV 2018,
in the form of the authors' code.

- The navigator (§3.2) scores anchors of three strides, from features to which it sends no gradient. The
  M best that do not overlap are cut out of the image and resized to half of its side.
- The teacher (§3.2) classifies each of these crops, by features of the same backbone.
- The scrutinizer (§3.3) classifies the features of the K best crops and of the image, joined.

The loss (§3.4) is the sum of the scrutinizer's, of that of a classifier of the image alone, of the mean
of the teacher's over the crops, and of the navigator's, which wants the regions in the order of the
teacher's confidence.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses import cross_entropy
from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.heads.layers import LINEAR_INIT, linear
from fgr_jax.models.heads.regions import RATIOS, Anchors, best_boxes, boxes_of, crops_of

_OVERLAP = 0.25
_SCALES = (
    (2 ** (1 / 3), 2 ** (2 / 3)),
    (2 ** (1 / 3), 2 ** (2 / 3)),
    (1, 2 ** (1 / 3), 2 ** (2 / 3)),
)
_SIZE = 1.5  # of an anchor, in strides: 48 pixels for 32


class NtsHead(nn.Module):
    """Maps an image and its features to scores by way of the regions that it chooses.

    Attributes:
      num_classes: C.
      regions: M, the number of regions that are looked at again.
      joined: K, how many of them the scores depend on.
      channels: of the navigator.
      dtype: dtype of the navigator's convolutions.
    """

    num_classes: int
    regions: int = 6
    joined: int = 4
    channels: int = 128
    dtype: Any = jnp.float32
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
        """Maps features `[B, h, w, D]` to scores `[B, C]` and their average `[B, D]`.

        Args:
          features: of the images.
          train: makes no difference.
          images: normalized, `[B, H, W, 3]`; None where only shapes are wanted.
          features_of: the backbone.

        Returns:
          `branches` has the scores of the image alone ("image", `[B, C]`) and of the crops ("crops",
          `[B, M, C]`), and the navigator's scores of the regions ("informativeness", `[B, M]`).
        """
        del train
        average = at_least_float32(class_scores(features))
        scores, maps = self._navigator(jax.lax.stop_gradient(features))
        if images is None:
            informativeness = scores[:, : self.regions]
            crops = jnp.repeat(average[:, None], self.regions, axis=1)
        else:
            side = images.shape[1]
            boxes = _boxes(maps, side / features.shape[1])
            chosen = jax.vmap(lambda each: best_boxes(each, boxes, self.regions, _OVERLAP))(scores)
            # Products with ones and zeros, whose gradient needs no scatter.
            is_chosen = jax.nn.one_hot(chosen, len(boxes), dtype=scores.dtype)
            informativeness = jnp.einsum("bma,ba->bm", is_chosen, scores)
            looked_at = crops_of(images, jnp.asarray(boxes)[chosen], side // 2)
            looked_at = looked_at.reshape(-1, *looked_at.shape[2:]).astype(images.dtype)
            again = class_scores(features_of(jax.lax.stop_gradient(looked_at)))
            crops = at_least_float32(again).reshape(-1, self.regions, again.shape[-1])
        kinds = {"param_dtype": self.param_dtype}
        joined = jnp.concatenate([*jnp.unstack(crops[:, : self.joined], axis=1), average], axis=1)
        return Outputs(
            scores=linear(self.num_classes, name="scrutinizer", **kinds)(joined),
            features=average,
            branches={
                "image": linear(self.num_classes, name="image", **kinds)(average),
                "crops": linear(self.num_classes, name="teacher", **kinds)(crops),
                "informativeness": informativeness,
            },
        )

    def _navigator(self, x: jax.Array) -> tuple[jax.Array, list[tuple[int, int]]]:
        """Scores all anchors, `[B, A]`; also returns the rows and columns of each of the three maps."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype, "kernel_init": LINEAR_INIT}
        scores, maps = [], []
        for level, scales in enumerate(_SCALES):
            stride = 1 if level == 0 else 2
            conv = Convolution(
                self.channels, (3, 3), stride, 1, name=f"navigator{level + 1}", **dtypes
            )
            x = nn.relu(conv(x))
            count = len(scales) * len(RATIOS)
            of_cells = Convolution(count, (1, 1), name=f"anchors{level + 1}", **dtypes)(x)
            maps.append((of_cells.shape[1], of_cells.shape[2]))
            by_anchor = jnp.moveaxis(at_least_float32(of_cells), -1, 1)
            scores.append(by_anchor.reshape(x.shape[0], -1))
        return jnp.concatenate(scores, axis=1), maps

    def objective(self, base: Objective) -> Objective:
        """Returns the sum of the four losses; `base` is that of the three classifiers."""

        def losses(outputs: Outputs, targets: Targets, extra: Extra) -> jax.Array:
            def of(scores: jax.Array) -> jax.Array:
                return base.losses(outputs._replace(scores=scores), targets, extra)

            assert outputs.branches is not None
            crops = jnp.unstack(outputs.branches["crops"], axis=1)
            confidence = [-cross_entropy(scores, targets.labels) for scores in crops]
            ranking = ranking_loss(
                outputs.branches["informativeness"],
                jax.lax.stop_gradient(jnp.stack(confidence, axis=1)),
            )
            teacher = sum(of(scores) for scores in crops) / len(crops)
            return of(outputs.branches["image"]) + of(outputs.scores) + teacher + ranking

        return base._replace(losses=losses)


def ranking_loss(informativeness: jax.Array, confidence: jax.Array) -> jax.Array:
    """Returns the sum of max(0, 1 − (I_s − I_i)) over the pairs of regions with C_s > C_i (§3.4).

    Args:
      informativeness: I, `[B, M]`.
      confidence: C, `[B, M]`.

    Returns:
      `[B]`.
    """
    is_better = confidence[:, :, None] > confidence[:, None, :]
    hinge = jnp.maximum(1 - informativeness[:, :, None] + informativeness[:, None, :], 0)
    return jnp.sum(jnp.where(is_better, hinge, 0), axis=(1, 2))


def _boxes(maps: list[tuple[int, int]], stride: float) -> Any:
    """Returns the anchors at the cells of the three maps, `[A, 4]`."""
    found = []
    for level, ((rows, columns), scales) in enumerate(zip(maps, _SCALES, strict=True)):
        of_level = stride * 2**level
        found.append(boxes_of(Anchors(of_level, _SIZE * of_level, scales), rows, columns))
    return np.concatenate(found)


def from_config(network: Network, num_classes: int) -> NtsHead:
    """Builds the head for the config's section `network`."""
    return NtsHead(num_classes, dtype=jnp.dtype(network.compute_dtype))

"""What all listed backbones have in common: named stages, frozen or trained."""

import abc
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.errors import UserError
from fgr_jax.models.weights.table import Table

# Channel means and deviations, for pixels in [0, 1], RGB.
Channels = tuple[float, float, float]
IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)

# Of each listed architecture, the tags of weights that fit it on the Hugging Face hub, and the license
# of each, as timm states it.
Hub = Mapping[str, Mapping[str, str]]


def licensed(license_of_all: str, tags: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """Returns the table of weights that all have the same license."""
    return {name: dict.fromkeys(of_name, license_of_all) for name, of_name in tags.items()}


class Backbone(nn.Module, kw_only=True):
    """Maps images `[B, H, W, 3]` to features `[B, h, w, D]` in a sequence of stages.

    The output of each stage is sown into the collection "intermediates" under the stage's name:
    `apply(..., mutable=["intermediates"])` returns them. A subclass defines `stages`, `stage` and
    `stride`, and `table` if there are weights for it.

    Attributes:
      frozen: the last of the stages that are not trained: no gradient reaches them, and their BatchNorm
        uses its running statistics in training too. "" trains all of them.
      norm_group: BatchNorm's statistics are those of so many images; 0: of the batch.
      drop_path: the probability that the last block's residual branch is left out in training. It
        grows linearly from 0 for the first block.
      remat: whether the stages are computed again for the gradient, to save memory.
      mean: the channel means that the images are normalized with.
      std: likewise the deviations.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters and running statistics.
    """

    frozen: str = ""
    norm_group: int = 0
    drop_path: float = 0.0
    remat: bool = False
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    table: ClassVar[Table] = ()  # the names of the parameters in weight files
    # Increased whenever the code computes other values: features that are kept in files depend on it.
    version: ClassVar[int] = 1

    @property
    @abc.abstractmethod
    def stages(self) -> tuple[str, ...]:
        """The names of the stages, in order."""

    @property
    @abc.abstractmethod
    def stride(self) -> int:
        """The number of pixels from one cell of the features to the next."""

    @property
    def origin(self) -> float:
        """The row and column of the pixel that the first cell is centered at.

        It is 0 with symmetric padding, and (stride − 1) / 2 if the cells are patches of the image.
        """
        return 0.0

    @abc.abstractmethod
    def stage(self, name: str, x: Any, *, train: bool) -> Any:
        """Maps the output of the stage before, or images, to the output of the stage `name`.

        Called within `__call__`, so it may create submodules, with names of their own.
        """

    @nn.compact
    def __call__(self, x: Any, *, train: bool, start: str = "", also: str = "") -> Any:
        """Maps normalized images `[B, H, W, 3]` to features `[B, h, w, D]`.

        h is ⌈H/stride⌉ with convolutions that pad, and ⌊H/stride⌋ where the images are divided into
        patches; likewise w.

        With `train`, BatchNorm uses the batch's statistics and updates the running ones (collection
        "batch_stats", which must be mutable then); otherwise it uses the running ones.

        Args:
          x: the images, or the output of the stage `start`.
          train: whether this is a step of training.
          start: the stage to continue after; "" starts with the images.
          also: a stage from `start` on, whose output is returned after the features; "" for none.
        """
        frozen = self._count(self.frozen)
        earlier = x
        for index in range(self._count(start), len(self.stages)):
            name = self.stages[index]
            trains = train and index >= frozen
            compute: Any = functools.partial(_stage, name=name, train=trains)
            x = (nn.remat(compute) if self.remat and trains else compute)(self, x)
            if name == self.frozen:
                x = jax.tree.map(jax.lax.stop_gradient, x)
            self.sow("intermediates", name, x)
            if name == also:
                earlier = x
        return (x, earlier) if also else x

    def drop_rate(self, block: int, last: int, *, train: bool) -> float:
        """Returns the rate of stochastic depth for a block, given the number of the last one."""
        return self.drop_path * block / max(last, 1) if train else 0.0

    def _count(self, last: str) -> int:
        """Returns how many stages there are up to `last`, which is "" for none."""
        return self.stages.index(last) + 1 if last else 0


def _stage(backbone: Backbone, x: Any, *, name: str, train: bool) -> Any:
    return backbone.stage(name, x, train=train)


def refuse_last_stride(network: Network) -> None:
    """Checks that the config's `last_stride` is left as it is, for architectures that have one stride.

    Raises:
      UserError: it is not 2.
    """
    if network.last_stride != 2:
        raise UserError(
            f"--config.network.last_stride={network.last_stride} is for ResNets: set it to 2 with "
            f"--config.network.backbone={network.backbone}"
        )

"""What a head may define beside `__call__`, and the rest of the program finds by asking for it."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np

from fgr_jax.config import Config, pairs_are_lost_by, refuse


@runtime_checkable
class FromFeatures(Protocol):
    """A head whose first parameters can be computed from features of the training images.

    The methods are called in this order, outside of `apply`: they have no variables.
    """

    def observe(self, features: jax.Array, mask: jax.Array, **more: Any) -> tuple[Any, Any]:
        """Returns what is kept of a batch; is compiled.

        Args:
          features: `[B, h, w, D]`.
          mask: bool `[B]`, false for images that are to be left out.
          more: the further arguments of the head's `__call__`.

        Returns:
          A tree of arrays `[B, ...]`, and a tree of arrays that are summed over all batches.
        """

    def for_class(self, by_image: Any, generator: np.random.Generator) -> Any:
        """Returns what is computed from the images of a class, or None if nothing can be.

        Args:
          by_image: the first tree of `observe` for the images of the class, on the host.
          generator: of random numbers that depend on the run's seed and the class.
        """

    def initialized(self, params: Any, by_class: Mapping[int, Any], sums: Any) -> Any:
        """Returns the head's parameters.

        Args:
          params: those that were drawn, on the host.
          by_class: the results of `for_class`.
          sums: the second tree of `observe`, summed in float64.
        """


def check_training(config: Config, head: nn.Module) -> None:
    """Checks that a run trains a head in the way that the head needs.

    Raises:
      UserError: the head has the attribute `needs_pairs`, and batches are not of pairs or are divided or
        mixed; or it has `several_scores`, each of which would count center loss.
    """
    name = config.network.head
    if getattr(head, "needs_pairs", False):
        if not config.data.pairs:
            refuse("data.pairs", False, f"True with network.head={name}")
        if reason := pairs_are_lost_by(config):
            refuse("network.head", name, f"another with {reason}")
    if getattr(head, "several_scores", False) and config.loss.center:
        wanted = f"0 with network.head={name}: each of its scores would count it"
        refuse("loss.center", config.loss.center, wanted)

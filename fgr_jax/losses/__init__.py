"""Losses as pure functions of arrays. Those that a config can add are listed here."""

from collections.abc import Callable, Mapping

from fgr_jax.losses import center, max_entropy, pairwise_confusion
from fgr_jax.losses.ce import cross_entropy
from fgr_jax.losses.gce import gradient_boosting_cross_entropy
from fgr_jax.losses.interface import Objective

__all__ = ["ADDED", "cross_entropy", "gradient_boosting_cross_entropy"]

# Losses that are added to cross-entropy, in this order, if the field of that name in the config's
# section `loss` is not 0. Each is a function of that weight.
ADDED: Mapping[str, Callable[[float], Objective]] = {
    "max_entropy": max_entropy.objective,
    "pairwise_confusion": pairwise_confusion.objective,
    "center": center.objective,
}

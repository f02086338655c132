"""Losses as pure functions of scores and labels, and how they add up to an objective."""

from fgr_jax.losses.ce import cross_entropy
from fgr_jax.losses.gce import gradient_boosting_cross_entropy

__all__ = ["cross_entropy", "gradient_boosting_cross_entropy"]

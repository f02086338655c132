"""Losses as pure functions of scores and labels, one value per example."""

from fgr_jax.losses.gce import cross_entropy, gradient_boosting_cross_entropy

__all__ = ["cross_entropy", "gradient_boosting_cross_entropy"]

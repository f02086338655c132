"""Fine-grained recognition in JAX: the diversification block and gradient-boosting cross-entropy.

Both are pure functions and depend on nothing but jax:

    scores = class_scores(diversify(key, maps, p_peak=0.5, p_patch=0.5, patch_size=3, alpha=0.1))
    loss = gradient_boosting_cross_entropy(scores, labels, k=15).mean()
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgr_jax.diversification import class_scores, diversify, suppression_mask
    from fgr_jax.losses import cross_entropy, gradient_boosting_cross_entropy

__all__ = [
    "class_scores",
    "cross_entropy",
    "diversify",
    "gradient_boosting_cross_entropy",
    "suppression_mask",
]


def __getattr__(name: str) -> Any:
    """Imports jax on first use, so that `python -m fgr_jax --help` is fast."""
    if name in ("diversification", "losses"):
        return importlib.import_module(f"fgr_jax.{name}")
    if name in __all__:
        from fgr_jax import diversification, losses

        return getattr(diversification, name, None) or getattr(losses, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Our networks with the weights of `goldens/recipe.py`, to compare with PyTorch's numbers."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from goldens import recipe
from networks import shapes_of

from fgr_jax.models.network import Network
from fgr_jax.models.weights.table import from_tensors, to_tensors

GOLDENS = Path(__file__).parent.parent / "goldens"
# For `jax.jit`, whatever the tests compile with: float64 convolutions are loops that LLVM must optimize.
OPTIMIZED = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}


@functools.cache
def goldens_of(family: str) -> dict[str, np.ndarray]:
    """What `make_timm.py` wrote for a family."""
    with np.load(GOLDENS / f"{family}.npz") as file:
        return dict(file)


def variables_of(network: Network, *size: int, dtype: Any = np.float32) -> Any:
    """The recipe's weights, placed by the table that also places real files.

    `size` is the height and the width of the images, or the side of square ones.
    """
    like = shapes_of(network, size[0], size[-1])
    like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, dtype), like)
    shapes = {name: list(tensor.shape) for name, tensor in to_tensors(like, network.table).items()}
    return from_tensors(recipe.weights(shapes), like, network.table, "recipe")


def differences(
    goldens: dict[str, np.ndarray], key: str, tensors: dict, before: dict
) -> tuple[dict[str, float], dict[str, float]]:
    """Relative differences from PyTorch's (gradients, running statistics), by name.

    Where BatchNorm follows without a nonlinearity, the gradient of a bias is zero but for rounding. Its
    difference is relative to the largest gradient.
    """
    gradients, statistics = {}, {}
    largest = max(golden[-1] for name, golden in goldens.items() if f"{key}/gradient/" in name)
    for name, tensor in tensors.items():
        if "running" not in name:
            golden = goldens[f"{key}/gradient/{name}"]
            if golden[-1] < 1e-14 * largest:
                golden = np.asarray([*golden[:-1], largest])
            gradients[name] = recipe.relative_difference(tensor, golden)
            continue
        if name.endswith("running_var"):
            # We keep Flax's biased variance; PyTorch's is n/(n − 1) times the batch's.
            n = goldens[f"{key}/count/{name.removesuffix('.running_var')}"]
            biased = (tensor - 0.9 * before[name]) / 0.1
            tensor = 0.9 * before[name] + 0.1 * biased * (n / (n - 1))
        golden = goldens[f"{key}/statistics/{name}"]
        statistics[name] = recipe.relative_difference(tensor, golden)
    assert len(gradients) == sum(name.startswith(f"{key}/gradient/") for name in goldens)
    assert len(statistics) == sum(name.startswith(f"{key}/statistics/") for name in goldens)
    return gradients, statistics

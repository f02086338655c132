"""A compiled training step of a tiny network, and batches for it."""

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from symmetries_reference import turned_by_numpy

from fgr_jax.calendar import Calendar
from fgr_jax.config import NEVER, Config, flat
from fgr_jax.distributed import batch_sharding, data_mesh
from fgr_jax.models.backbones.interface import IMAGENET_MEAN, IMAGENET_STD
from fgr_jax.models.network import build_network
from fgr_jax.train.objective import build_objective
from fgr_jax.train.optimizer import build_optimizer
from fgr_jax.train.step import Steps, TrainState, build_steps

CLASSES = 5

_BUILT: dict[tuple[object, ...], Steps] = {}


def build(
    config: Config, *, gce_start_step: int | None = 0, gce_fade_steps: int = 0, devices: int = 1
) -> tuple[Steps, TrainState]:
    """Returns the steps of a config, which equal configs share, and the state before the first."""
    start = NEVER if gce_start_step is None else f"{gce_start_step} steps"
    loss = dataclasses.replace(config.loss, gce_start=start, gce_fade=f"{gce_fade_steps} steps")
    config = dataclasses.replace(config, loss=loss)
    key = (*flat(config).items(), devices)
    if key not in _BUILT:
        _BUILT[key] = _build(copy.deepcopy(config), devices)  # the test may change what it gave
    return _BUILT[key], _BUILT[key].init()


def _build(config: Config, devices: int) -> Steps:
    network = build_network(config, CLASSES)
    optimizer = build_optimizer(config, network, lambda _: jnp.float32(0.05))
    mesh = data_mesh(jax.devices()[:devices])
    objective = build_objective(config, Calendar.of(config, config.batch_size), mesh)
    return build_steps(config, network, objective, optimizer, mesh)


def batch_of(size: int, *, pixels: int = 32, devices: int = 1, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    batch = {
        "image": rng.integers(0, 256, (size, pixels, pixels, 3), np.uint8),
        "label": rng.integers(0, CLASSES, size, np.int32),
        "mask": np.ones(size, bool),
        "symmetry": rng.integers(0, 8, size, np.int32),
    }
    return jax.device_put(batch, batch_sharding(data_mesh(jax.devices()[:devices])))


def shown(batch: dict) -> jax.Array:
    """What a training step shows the network of a batch, turned by another hand."""
    turned = turned_by_numpy(np.asarray(batch["image"]), np.asarray(batch["symmetry"]))
    mean, std = (np.asarray(each, np.float32) for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (jnp.asarray(turned).astype(jnp.float32) / 255 - mean) / std


def outputs_in_training(config: Config, state: TrainState, batch: dict) -> Any:
    """What the network of a config computes of a batch in training."""
    network = build_network(config, CLASSES)
    apply = jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))
    return apply(state.variables, shown(batch))[0]


def as_numpy(tree: object) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def relative_difference(ours: object, theirs: object) -> float:
    one = np.concatenate([leaf.ravel() for leaf in as_numpy(ours)])
    other = np.concatenate([leaf.ravel() for leaf in as_numpy(theirs)])
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))

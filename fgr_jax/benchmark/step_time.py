"""The time of a training step on synthetic images: with the block and GCE, and with each head.

Only needs jax, flax, optax, ml_collections and numpy.
"""

import dataclasses
import statistics
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.benchmark.interleaving import interleaved, median_and_quartiles
from fgr_jax.calendar import Calendar
from fgr_jax.config import NEVER, Config, Loss
from fgr_jax.data.batch import noise_batch
from fgr_jax.distributed import batch_sharding, data_mesh
from fgr_jax.models.heads import HEADS
from fgr_jax.models.network import build_network, network_name, parameter_count
from fgr_jax.train.objective import build_objective
from fgr_jax.train.optimizer import build_optimizer
from fgr_jax.train.step import DeviceBatch, Steps, build_steps

# Name, whether the loss is GCE, and whether the block is on.
VARIANTS = (("cross-entropy", False, False), ("GCE", True, False), ("block + GCE", True, True))


def steps_of(config: Config, classes: int) -> Steps:
    """Builds the compiled functions of `config` on all devices."""
    network = build_network(config, classes)
    rate = jnp.float32(config.optimizer.learning_rate)
    optimizer = build_optimizer(config, network, lambda _: rate)
    mesh = data_mesh()
    calendar = Calendar.of(config, config.batch_size)
    objective = build_objective(config, calendar, mesh, np.ones(classes, np.int64))
    return build_steps(config, network, objective, optimizer, mesh)


def _variant(config: Config, *, gce: bool, block: bool) -> Config:
    """Returns the config with GCE or cross-entropy and nothing added, with or without the block."""
    loss = Loss(k=config.loss.k, gce_start="0 steps" if gce else NEVER)
    alpha = config.diversification.alpha if block else 1.0
    diversification = dataclasses.replace(config.diversification, alpha=alpha)
    return dataclasses.replace(config, loss=loss, diversification=diversification)


def plain(config: Config) -> Config:
    """Returns the config with cross-entropy and without the block."""
    return _variant(config, gce=False, block=False)


def synthetic_batch(config: Config, classes: int) -> DeviceBatch:
    """Returns noise of the config's batch size and resolution, on the devices."""
    batch = noise_batch(config.data, config.batch_size, classes)
    return jax.device_put(batch, batch_sharding(data_mesh()))


class Stepper(NamedTuple):
    """A training step that can be taken repeatedly."""

    step: Callable[[], None]  # takes one step from the last state, and waits for it
    flops: float  # of the compiled program, on all devices together
    parameters: int
    text: str  # the compiled program


def stepper(steps: Steps, batch: DeviceBatch) -> Stepper:
    """Compiles the step of `steps` for `batch`."""
    state = steps.init()
    train = steps.train.lower(state, batch).compile()
    parameters = parameter_count(state.params)

    def step() -> None:
        nonlocal state
        state, record = train(state, batch)
        jax.block_until_ready((state, record))

    flops = (train.cost_analysis() or {}).get("flops", float("nan")) * data_mesh().size
    return Stepper(step, flops, parameters, train.as_text() or "")


def print_head_times(config: Config, *, classes: int, rounds: int) -> None:
    """Times a step with each listed head, with cross-entropy and without the block."""
    config = plain(config)
    batch = synthetic_batch(config, classes)
    steppers = {
        name: stepper(
            steps_of(
                dataclasses.replace(config, network=dataclasses.replace(config.network, head=name)),
                classes,
            ),
            batch,
        )
        for name in HEADS
        if name != "gaussian"  # the CAM head, for L-GM alone
    }
    times = interleaved({name: each.step for name, each in steppers.items()}, rounds)
    print(title(config, classes, medians(rounds)))
    print(f"{'head':14} {'parameters':>12} {'GFLOP':>9} {'ms/step':>9}  {'/ cam':<20}")
    for name, seconds in times.items():
        each = steppers[name]
        ratios = [ours / theirs for ours, theirs in zip(seconds, times["cam"], strict=True)]
        print(
            f"{name:14} {each.parameters:12,} {each.flops / 1e9:9.1f} "
            f"{statistics.median(seconds) * 1e3:9.2f}  {median_and_quartiles(ratios)}"
        )


def title(config: Config, classes: int, figures: str, parameters: str = "") -> str:
    """Returns what the `figures` are of: network, batch and devices."""
    devices = jax.devices()
    return (
        f"training step: {network_name(config.network)}, {config.network.compute_dtype}, "
        f"{config.data.crop}×{config.data.crop}, batch {config.batch_size}, {classes} classes"
        f"{parameters}; {len(devices)} × {devices[0].device_kind}; "
        f"{figures}"
    )


def medians(rounds: int) -> str:
    """Describes what `interleaved` measures."""
    return f"median of {rounds} interleaved rounds"


def print_step_times(config: Config, *, classes: int, rounds: int) -> None:
    """Times a step with cross-entropy, with GCE, and with block and GCE."""
    batch = synthetic_batch(config, classes)
    steppers = {
        name: stepper(steps_of(_variant(config, gce=gce, block=block), classes), batch)
        for name, gce, block in VARIANTS
    }
    times = interleaved({name: each.step for name, each in steppers.items()}, rounds)
    base = times["cross-entropy"]
    parameters = f", {steppers['GCE'].parameters:,} parameters"
    print(title(config, classes, medians(rounds), parameters))
    print(f"{'':14} {'ms/step':>9} {'images/s':>9} {'TFLOP/s':>9}  {'/ cross-entropy':<20}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ratios = [ours / theirs for ours, theirs in zip(seconds, base, strict=True)]
        print(
            f"{name:14} {median * 1e3:9.2f} {config.batch_size / median:9.1f} "
            f"{steppers[name].flops / median / 1e12:9.3f}  {median_and_quartiles(ratios)}"
        )

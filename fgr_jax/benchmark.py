"""Measures what the block and the loss cost, how fast a step is, and how fast pictures come in.

python -m fgr_jax.benchmark --config=configs/cub.py [--part=step|input|all] [--rounds=N]
                            [--classes=N] [--config.FIELD=VALUE ...]

The step is timed on synthetic images in the config's batch size and resolution, on whatever devices
there are. This part needs jax, flax, optax, ml_collections and numpy alone. Variants take turns, a
step each, and the ratios are medians over the rounds, so they hold on a machine with other work.
"""

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from fgr_jax import command_line
from fgr_jax.config import Config
from fgr_jax.models.cam_network import parameter_count
from fgr_jax.training.optimizer import momentum_sgd
from fgr_jax.training.step import (
    DeviceBatch,
    TrainState,
    batch_sharding,
    build_network,
    build_steps,
    data_mesh,
)

_WARM_UP_ROUNDS = 2


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_enum("part", "all", ["step", "input", "all"], "what to time", flag_values=own)
    flags.DEFINE_integer("rounds", 20, "timed rounds", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("classes", 200, "number of classes", lower_bound=2, flag_values=own)
    invocation = command_line.parse(argv, __doc__ or "", own)
    if own.part in ("step", "all"):
        time_step(invocation.config, classes=own.classes, rounds=own.rounds)
    if own.part in ("input", "all"):
        time_input(invocation.config, rounds=own.rounds)
    return 0


def time_step(config: Config, *, classes: int, rounds: int) -> None:
    """Prints the time of a training step with and without the block and GCE."""
    mesh = data_mesh()
    network = build_network(config, classes)
    optimizer = momentum_sgd(
        lambda _: jnp.float32(config.optimizer.learning_rate),
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
    )
    size = config.data.crop
    rng = np.random.default_rng(0)
    batch = jax.device_put(
        {
            "image": rng.integers(0, 256, (config.batch_size, size, size, 3), np.uint8),
            "label": rng.integers(0, classes, config.batch_size, np.int32),
            "mask": np.ones(config.batch_size, np.bool_),
        },
        batch_sharding(mesh),
    )
    variants: dict[str, Callable[[], None]] = {}
    flops_per_device: dict[str, float] = {}
    for name, gce_start_step, variant_alpha in (
        ("cross-entropy", None, 1.0),
        ("GCE", 0, 1.0),
        ("block + GCE", 0, config.diversification.alpha),
    ):
        block = dataclasses.replace(config.diversification, alpha=variant_alpha)
        variant = dataclasses.replace(config, diversification=block)
        steps = build_steps(variant, network, optimizer, gce_start_step=gce_start_step, mesh=mesh)
        state = steps.init()
        train = steps.train.lower(state, batch).compile()
        cost = train.cost_analysis()
        flops_per_device[name] = (cost or {}).get("flops", float("nan"))

        variants[name] = _stepper(train, state, batch)

    times = _interleaved(variants, rounds)
    base = times["cross-entropy"]
    device = jax.devices()[0]
    print(
        f"training step: ResNet-{config.network.depth} × {config.network.width:g}, "
        f"{config.network.compute_dtype}, {size}×{size}, batch {config.batch_size}, {classes} classes, "
        f"{parameter_count(state.params):,} parameters; {mesh.size} × {device.device_kind}; "
        f"median of {rounds} interleaved rounds"
    )
    print(f"{'':14} {'ms/step':>9} {'images/s':>9} {'TFLOP/s':>9}  {'/ cross-entropy':<20}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        ratios = [ours / theirs for ours, theirs in zip(seconds, base, strict=True)]
        teraflops = flops_per_device[name] * mesh.size / median / 1e12
        print(
            f"{name:14} {median * 1e3:9.2f} {config.batch_size / median:9.1f} {teraflops:9.3f}  "
            f"{_median_and_quartiles(ratios)}"
        )


def _stepper(train: Any, state: TrainState, batch: DeviceBatch) -> Callable[[], None]:
    """A call that takes one step, from the state in which the call before left off."""

    def step() -> None:
        nonlocal state
        state, record = train(state, batch)
        jax.block_until_ready((state, record))

    return step


def time_input(config: Config, *, rounds: int) -> None:
    """Prints the input pipeline's pictures a second beside those of a bare OpenCV loop."""
    # Here, not above: a GPU machine without tfds and Grain can time the step.
    import cv2

    from fgr_jax import images
    from fgr_jax.input.pipeline import Share, training_batches
    from fgr_jax.input.source import open_splits
    from fgr_jax.reporting.terminal import Terminal

    with tempfile.TemporaryDirectory() as folder:
        config.data.name, config.data.data_dir = "synthetic/photographs", folder
        config.data.train_split, config.data.test_split = "train", "test"
        source, _ = open_splits(config.data, Terminal())
        share = Share(config.batch_size)
        steps = range(max(1, 4096 // config.batch_size))
        pictures = len(steps) * config.batch_size
        encoded = [source[index].encoded_image for index in range(min(pictures, len(source)))]
        kilobytes = sum(map(len, encoded)) / len(encoded) / 1e3

        def bare() -> None:
            cv2.setNumThreads(1)
            margin = (config.data.resize - config.data.crop) // 2
            for data in islice(cycle(encoded), pictures):
                image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
                image = images.resize(np.asarray(image, np.uint8), config.data.resize)
                images.crop(image, margin, margin, config.data.crop)

        def pipeline() -> None:
            # From its start to its end: nothing is decoded ahead in the other variant's time.
            for _ in training_batches(
                source, config.data, config.runtime, share, seed=config.seed, steps=steps
            ):
                pass

        times = _interleaved({"bare loop": bare, "pipeline": pipeline}, rounds)
    ratios = [b / p for b, p in zip(times["bare loop"], times["pipeline"], strict=True)]
    print(
        f"input: 500×375 JPEGs of {kilobytes:.0f} kB to {config.data.resize} and "
        f"{config.data.crop}; {config.runtime.decode_threads} threads, "
        f"{config.runtime.decode_workers} worker processes; median of {rounds} interleaved rounds"
    )
    for name, seconds in times.items():
        print(f"{name:14} {pictures / statistics.median(seconds):9.0f} images/s")
    print(f"{'pipeline / bare loop on one core':34} {_median_and_quartiles(ratios)}")


def _interleaved(variants: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round; the variants take turns within a round."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for round_index in range(-_WARM_UP_ROUNDS, rounds):
        for name, call in variants.items():
            start = time.perf_counter()
            call()
            if round_index >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def _median_and_quartiles(values: list[float]) -> str:
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f})"


if __name__ == "__main__":
    command_line.run(main)

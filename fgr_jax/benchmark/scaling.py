"""The exchanges of a compiled training step between devices, and a prediction of how it scales.

The prediction is computed from the operations and bytes of a step and the published specifications of a
machine; its assumptions are fields. It helps to choose a machine but does not replace a measurement.
"""

import dataclasses
import math

import jax

from fgr_jax.benchmark.compiled import collectives
from fgr_jax.benchmark.step_time import steps_of, synthetic_batch
from fgr_jax.config import Config
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.models.network import network_name, parameter_count


@dataclasses.dataclass(frozen=True, slots=True)
class Machine:
    """An accelerator and the links of its chips: published specifications, and assumptions."""

    name: str
    peak: float  # FLOP/s of a chip, bfloat16
    utilization: float  # the share of it that a ResNet reaches: an assumption
    chips_per_host: int
    host_bandwidth: float  # bytes/s of a chip in an all-reduce among the chips of a host
    bandwidth: float  # the same among several hosts
    host_latency: float  # seconds of a small all-reduce among the chips of a host: an assumption
    latency: float  # the same among several hosts: an assumption


# v4: 275 TFLOP/s, six links of 50 GB/s; a ring over two of them is assumed. H100 SXM: 989 TFLOP/s;
# NVLink 450 GB/s each way; 400 Gb/s of network for each GPU, all eight used together.
TPU_V4 = Machine("TPU v4", 275e12, 0.35, 4, 100e9, 100e9, 10e-6, 20e-6)
H100 = Machine("H100", 989e12, 0.30, 8, 300e9, 150e9, 20e-6, 40e-6)


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """A training step on any number of chips."""

    flops_per_image: float
    gradient_bytes: int  # of the one combined all-reduce
    small_exchanges: int  # all-reduces whose time is latency: BatchNorm's statistics, counts


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """The parts of a step, in seconds, assuming that none of them overlap."""

    compute: float
    gradients: float
    small: float

    @property
    def total(self) -> float:
        """The seconds of the whole step."""
        return self.compute + self.gradients + self.small

    @property
    def efficiency(self) -> float:
        """The share of the time in which the chips compute."""
        return self.compute / self.total


def predict(step: Step, machine: Machine, *, chips: int, batch_size: int) -> Prediction:
    """Predicts the time of a step of `batch_size` images, spread over `chips`.

    Raises:
      ValueError: the batch size is not divisible by the number of chips.
    """
    if batch_size % chips:
        raise ValueError(f"a batch of {batch_size} cannot be spread over {chips} chips")
    within = chips <= machine.chips_per_host
    bandwidth = machine.host_bandwidth if within else machine.bandwidth
    latency = machine.host_latency if within else machine.latency
    return Prediction(
        compute=batch_size // chips * step.flops_per_image / (machine.peak * machine.utilization),
        # A ring: each chip sends every byte twice, except for its own share.
        gradients=2 * (chips - 1) / chips * step.gradient_bytes / bandwidth,
        small=0.0 if chips == 1 else step.small_exchanges * latency,
    )


def smallest_batch(
    step: Step, machine: Machine, *, chips: int, efficiency: float, images: int = 1
) -> int:
    """Returns the smallest batch, `images` times a power of 2 per chip, that reaches the efficiency."""
    while predict(step, machine, chips=chips, batch_size=images * chips).efficiency < efficiency:
        images *= 2
    return images * chips


def print_scaling(config: Config, *, classes: int, examples: int) -> None:
    """Prints the exchanges of a step on the present devices, and predictions for TPU v4 and H100.

    Raises:
      UserError: there is only one device, or the batch cannot be spread over the devices.
    """
    devices = data_mesh().size
    if devices == 1:
        raise UserError(
            "--part=scaling: needs several devices, and there is only one here; "
            "JAX_NUM_CPU_DEVICES=8 makes a CPU act as eight"
        )
    if config.batch_size % devices:
        raise UserError(
            f"--config.batch_size={config.batch_size}: must be a multiple of the number of "
            f"devices, {devices}"
        )
    group = config.network.norm_group
    if group and config.batch_size // devices % group:
        raise UserError(
            f"--config.network.norm_group={group}: the batch of {config.batch_size} gives each of "
            f"{devices} devices {config.batch_size // devices} images, which must be a multiple of it"
        )
    steps = steps_of(config, classes)
    state = jax.eval_shape(steps.init)
    compiled = steps.train.lower(state, synthetic_batch(config, classes)).compile()
    found = collectives(compiled.as_text())
    largest = max(found, key=lambda each: each.size)
    flops = (compiled.cost_analysis() or {}).get("flops", math.nan) * devices / config.batch_size
    step = Step(flops, largest.size, len(found) - 1)
    print(
        f"{network_name(config.network)}, {classes} classes, {parameter_count(state.params):,} "
        f"parameters, {config.data.crop}×{config.data.crop}: {flops / 1e9:.1f} GFLOP per image, "
        "forward and backward"
    )
    rest = sum(each.size for each in found) - largest.size
    kinds = sorted({each.kind for each in found})
    print(
        f"exchanged in a step on {devices} devices: one {largest.kind} of {largest.size / 1e6:.1f} MB, "
        f"and {step.small_exchanges} of {rest / 1e3:.1f} kB together; kinds: {', '.join(kinds)}"
    )
    for machine, chip_counts in ((TPU_V4, (4, 8, 16, 32, 64, 128)), (H100, (8, 16, 32, 64))):
        _print_prediction(step, machine, chip_counts, config.batch_size, max(group, 1), examples)


def _print_prediction(
    step: Step,
    machine: Machine,
    chip_counts: tuple[int, ...],
    batch_size: int,
    group: int,
    examples: int,
) -> None:
    """Prints batches that give each chip a multiple of `group` images."""
    print(f"\n{machine.name}, predicted, nothing overlapping")
    print(
        f"{'chips':>6} {'batch':>6} {'ms/step':>8} {'computing':>10} {'gradients':>10} {'small':>7} "
        f"{'images/s':>9} {'for a host':>11} {'s/epoch':>8}"
    )
    for chips in chip_counts:
        half = smallest_batch(step, machine, chips=chips, efficiency=0.5, images=group)
        batches = {half} | ({batch_size} if batch_size % (chips * group) == 0 else set())
        for batch in sorted(batches):
            each = predict(step, machine, chips=chips, batch_size=batch)
            speed = batch / each.total
            hosts = math.ceil(chips / machine.chips_per_host)
            print(
                f"{chips:6} {batch:6} {each.total * 1e3:8.2f} {each.efficiency:10.0%} "
                f"{each.gradients / each.total:10.0%} {each.small / each.total:7.0%} "
                f"{speed:9,.0f} {speed / hosts:11,.0f} {examples / speed:8.1f}"
            )

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
from fgr_jax.models.backbones import BACKBONES
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


_CHIPS = tuple(2**power for power in range(9))
_PAPERS_GROUP = 8  # images of a batch of 16 on two GPUs


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

    Both are for BatchNorm's statistics of the global batch and for those of groups of images, which are
    the config's or, as on the paper's two GPUs, of 8 images.

    Raises:
      UserError: there is only one device.
    """
    devices = data_mesh().size
    if devices == 1:
        raise UserError(
            "--part=scaling: needs several devices, and there is only one here; "
            "JAX_NUM_CPU_DEVICES=8 makes a CPU act as eight"
        )
    group = config.network.norm_group or _PAPERS_GROUP
    is_listed = config.network.backbone in BACKBONES  # others have no groups
    steps = {each: _step(config, classes, group, each) for each in (0, group)[: 1 + is_listed]}
    for machine in (TPU_V4, H100):
        _print_predictions(steps, machine, group, examples)


def _step(config: Config, classes: int, images: int, group: int) -> Step:
    """Compiles a step with `images` for each of the present devices, and prints what it exchanges."""
    devices = data_mesh().size
    network = dataclasses.replace(config.network, norm_group=group)
    config = dataclasses.replace(config, network=network, batch_size=devices * images)
    steps = steps_of(config, classes)
    state = jax.eval_shape(steps.init)
    compiled = steps.train.lower(state, synthetic_batch(config, classes)).compile()
    found = collectives(compiled.as_text())
    largest = max(found, key=lambda each: each.size)
    flops = (compiled.cost_analysis() or {}).get("flops", math.nan) * devices / config.batch_size
    if not group:
        print(
            f"{network_name(network)}, {classes} classes, {parameter_count(state.params):,} "
            f"parameters, {config.data.crop}×{config.data.crop}: {flops / 1e9:.1f} GFLOP per image, "
            "forward and backward"
        )
    rest = sum(each.size for each in found) - largest.size
    kinds = sorted({each.kind for each in found})
    print(
        f"exchanged on {devices} devices, with {_statistics(group)}: one {largest.kind} of "
        f"{largest.size / 1e6:.1f} MB, and {len(found) - 1} of {rest / 1e3:.1f} kB together; kinds: "
        f"{', '.join(kinds)}"
    )
    return Step(flops, largest.size, len(found) - 1)


def _statistics(group: int) -> str:
    return f"statistics of {f'groups of {group} images' if group else 'the global batch'}"


def _print_predictions(
    steps: dict[int, Step], machine: Machine, images: int, examples: int
) -> None:
    """Prints a row for each number of chips, each with so many images, and columns for each group."""
    print(f"\n{machine.name}, predicted, nothing overlapping, {images} images per chip")
    columns = f" {'ms/step':>8} {'computing':>10} {'images/s':>9} {'s/epoch':>8} {'half at':>7}"
    print(" " * 13 + "".join(f" {_statistics(group):^46}" for group in steps))
    print(f"{'chips':>6} {'batch':>6}" + len(steps) * columns)
    for chips in _CHIPS:
        batch = chips * images
        cells = []
        for group, step in steps.items():
            each = predict(step, machine, chips=chips, batch_size=batch)
            half = smallest_batch(step, machine, chips=chips, efficiency=0.5, images=group or 1)
            speed = batch / each.total
            cells.append(
                f" {each.total * 1e3:8.2f} {each.efficiency:10.0%} {speed:9,.0f} "
                f"{examples / speed:8.1f} {half:7,}"
            )
        print(f"{chips:6} {batch:6}{''.join(cells)}")
    print("half at: the smallest batch with which the chips compute for half of the time")

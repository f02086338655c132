"""Where the time of a training step goes: each layer's time, operations and bytes.

Times are those of XLA's instructions in a profile of whole steps, operations and bytes those of the
compiled program. What a large matrix product and a copy reach on the same device stands beside them.
"""

import collections
import dataclasses
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from fgr_jax.benchmark.compiled import Instruction, instructions
from fgr_jax.benchmark.interleaving import interleaved
from fgr_jax.benchmark.step_time import plain, stepper, steps_of, synthetic_batch, title
from fgr_jax.config import Config
from fgr_jax.errors import UserError

_SIDE = 4096  # of the matrix that is multiplied and copied
_ELSEWHERE = "loss, optimizer"
_SLOWEST = 10  # instructions that are listed


@dataclasses.dataclass
class _Share:
    """What some of the instructions take together."""

    seconds: float = 0.0
    flops: float = 0.0
    size: int = 0

    def add(self, seconds: float, instruction: Instruction) -> None:
        self.seconds += seconds
        self.flops += instruction.flops
        self.size += instruction.size


def print_layers(config: Config, *, classes: int, rounds: int) -> None:
    """Prints the table for a step with cross-entropy and without the block.

    Raises:
      UserError: the profiler names no instructions on this platform.
    """
    config = plain(config)
    compiled = stepper(steps_of(config, classes), synthetic_batch(config, classes))
    found = instructions(compiled.text)
    seconds = _profiled(compiled.step, rounds, set(found))
    if not seconds:
        raise UserError("--part=layers: the profiler names no instructions on this platform")
    rows: dict[str, dict[str, _Share]] = collections.defaultdict(
        lambda: collections.defaultdict(_Share)
    )
    for name, instruction in found.items():
        kind = "products" if instruction.flops else "rest"
        layer = layer_of(instruction.path)
        for row in (layer, "all"):
            rows[row][f"{kind}, {instruction.direction}"].add(seconds.get(name, 0.0), instruction)
    print(title(config, classes, f"mean of {rounds} steps"))
    product, copy = _ceilings(rounds)
    print(f"a matrix product: {product / 1e9:.0f} GFLOP/s; a copy: {copy / 1e9:.1f} GB/s\n")
    print(f"{'':22} {'convolutions and products':^35} {'all others':^35}")
    print(f"{'':22} " + 2 * f"{'forward':^17} {'backward':^17} ")
    print(f"{'layer':22} " + 2 * f"{'ms':>8} {'GFLOP/s':>8} " + 2 * f"{'ms':>8} {'GB/s':>8} ")
    for layer, shares in sorted(rows.items(), key=lambda item: item[0] == "all"):
        print(f"{layer:22} " + _cells(shares))
    total = sum(share.seconds for share in rows["all"].values())
    print(f"\n{total * 1e3:.1f} ms in all. The slowest instructions:")
    print(f"{'ms':>8} {'GFLOP/s':>8} {'GB/s':>8}  ")
    for name in sorted(seconds, key=lambda each: -seconds[each])[:_SLOWEST]:
        each, time = found[name], seconds[name]
        print(
            f"{time * 1e3:8.1f} {each.flops / time / 1e9:8.0f} {each.size / time / 1e9:8.1f}  "
            f"{name}: {each.path or _ELSEWHERE}, {each.direction}"
        )


def layer_of(path: str) -> str:
    """Returns the row of the table that an instruction belongs to: the block, or the layer."""
    parts = path.split("/")
    if parts[0] == "backbone" and len(parts) > 1:
        parts = parts[1:]
    return parts[0] or _ELSEWHERE


def _cells(shares: dict[str, _Share]) -> str:
    cells = []
    for kind, unit in (("products", "flops"), ("rest", "size")):
        for direction in ("forward", "backward"):
            share = shares[f"{kind}, {direction}"]
            rate = getattr(share, unit) / share.seconds / 1e9 if share.seconds else 0.0
            digits = 0 if kind == "products" else 1
            cells.append(f"{share.seconds * 1e3:8.1f} {rate:8.{digits}f} ")
    return "".join(cells)


def _profiled(step: Callable[[], None], rounds: int, names: set[str]) -> dict[str, float]:
    """Returns the seconds of each instruction in one step, the mean over steps and devices."""
    count = rounds * jax.local_device_count()
    for _ in range(2):
        step()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(rounds):
                step()
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        planes = [
            plane
            for path in files
            for plane in jax.profiler.ProfileData.from_file(str(path)).planes
        ]
    seconds: dict[str, float] = collections.defaultdict(float)
    for plane in planes:
        for line in plane.lines:
            for event in line.events:
                # On GPUs, events have the names of kernels.
                name = dict(event.stats).get("hlo_op")
                if name in names:
                    seconds[name] += event.duration_ns / 1e9 / count
    return seconds


def _ceilings(rounds: int) -> tuple[float, float]:
    """Returns the operations per second of a matrix product and the bytes per second of a copy."""
    matrix = jnp.ones((_SIDE, _SIDE))
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    times = interleaved(
        {
            "product": lambda: product(matrix).block_until_ready(),
            "copy": lambda: copy(matrix).block_until_ready(),
        },
        rounds,
    )
    of_product, of_copy = (statistics.median(each) for each in times.values())
    return 2 * _SIDE**3 / of_product, 2 * matrix.nbytes / of_copy

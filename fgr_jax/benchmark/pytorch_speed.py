"""The training step beside PyTorch's, with the same network, batch and optimizer on the same device.

PyTorch is used as it is fastest: channels last, and on GPUs compiled and, for bfloat16, with automatic
mixed precision. Needs PyTorch (`pip install torch`), which nothing else here does.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import jax

from fgr_jax.benchmark.interleaving import interleaved, median_and_quartiles
from fgr_jax.benchmark.step_time import (
    medians,
    plain,
    stepper,
    steps_of,
    synthetic_batch,
    title,
)
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.models.backbones.resnet import DEPTHS


def print_beside_pytorch(config: Config, *, classes: int, rounds: int) -> None:
    """Times a step with cross-entropy and without the block.

    Raises:
      UserError: PyTorch is missing, or the backbone is not a standard ResNet.
    """
    # Two processes share the memory of a GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    setting = _Setting.of(config, classes)
    config = plain(config)
    ours = stepper(steps_of(config, classes), synthetic_batch(config, classes))
    with _pytorch(setting) as (theirs, parameters):
        assert parameters == ours.parameters, (parameters, ours.parameters)
        times = interleaved({"JAX": ours.step, "PyTorch": theirs}, rounds, untimed=2)
    print(title(config, classes, medians(rounds)))
    print(f"{'':10} {'ms/step':>9} {'images/s':>9}")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:10} {median * 1e3:9.2f} {config.batch_size / median:9.1f}")
    ratios = [theirs / ours for ours, theirs in zip(*times.values(), strict=True)]
    version = importlib.metadata.version("torch")
    print(f"JAX's speed over that of PyTorch {version}: {median_and_quartiles(ratios)}")


@dataclasses.dataclass(frozen=True, slots=True)
class _Setting:
    """What PyTorch's process is to do."""

    depth: int
    classes: int
    batch_size: int
    side: int  # of the images
    mixed: bool  # precision
    on_gpu: bool

    @classmethod
    def of(cls, config: Config, classes: int) -> "_Setting":
        """Returns the setting of a config.

        Raises:
          UserError: PyTorch is missing, or the backbone is not a standard ResNet.
        """
        if importlib.util.find_spec("torch") is None:
            raise UserError("--part=pytorch: needs PyTorch; pip install torch")
        mixed = config.network.compute_dtype == "bfloat16"
        sizes = (classes, config.batch_size, config.data.crop)
        return cls(_depth(config), *sizes, mixed, jax.default_backend() == "gpu")


def _depth(config: Config) -> int:
    """Returns the depth of the config's ResNet.

    Raises:
      UserError: it is another backbone, or not of the standard width and stride.
    """
    network = config.network
    name = network.backbone.removeprefix("resnet")
    depth = int(name) if name.isdigit() else network.depth if not name else 0
    if depth not in DEPTHS or (network.width, network.last_stride) != (1.0, 2):
        raise UserError(
            f"--config.network.backbone={network.backbone}: --part=pytorch compares ResNets of the "
            "standard width and stride only"
        )
    return depth


@contextlib.contextmanager
def _pytorch(setting: _Setting) -> Iterator[tuple[Callable[[], None], int]]:
    """Yields a function that takes a step in a process of its own, and the number of parameters.

    In one process, the threads of the two libraries keep each other waiting.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_take_steps, args=(theirs, setting), daemon=True)
    process.start()
    theirs.close()

    def step() -> None:
        ours.send(None)
        ours.recv()

    try:
        yield step, ours.recv()
    finally:
        ours.close()
        process.join()


def _take_steps(connection: Connection, setting: _Setting) -> None:
    """Takes a step of SGD on noise whenever something arrives, until the other end is closed."""
    import torch
    from torch.nn import functional

    device = torch.device("cuda" if setting.on_gpu else "cpu")
    network = _resnet(setting.depth, setting.classes)
    network = network.to(device, memory_format=torch.channels_last)
    sgd = torch.optim.SGD(network.parameters(), 1e-3, 0.9, weight_decay=1e-4)
    images = torch.randn(setting.batch_size, 3, setting.side, setting.side, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, setting.classes, (setting.batch_size,), device=device)
    forward = torch.compile(network) if setting.on_gpu else network
    connection.send(sum(each.numel() for each in network.parameters()))
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        sgd.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=setting.mixed):
            loss = functional.cross_entropy(forward(images), labels)
        loss.backward()
        sgd.step()
        if setting.on_gpu:
            torch.cuda.synchronize()
        connection.send(None)


def _resnet(depth: int, classes: int) -> Any:
    """Returns torchvision's ResNet v1.5 of a depth."""
    from torch import nn

    counts, bottleneck = DEPTHS[depth]

    class Block(nn.Module):
        def __init__(self, inputs: int, channels: int, stride: int) -> None:
            super().__init__()
            outputs = 4 * channels if bottleneck else channels
            # Of each convolution: inputs, outputs, side of the kernel, stride.
            sizes = (
                [
                    (inputs, channels, 1, 1),
                    (channels, channels, 3, stride),
                    (channels, outputs, 1, 1),
                ]
                if bottleneck
                else [(inputs, channels, 3, stride), (channels, outputs, 3, 1)]
            )
            layers: list[nn.Module] = []
            for each in sizes:
                layers += [*_convolution(nn, *each), nn.ReLU(inplace=True)]
            self.layers = nn.Sequential(*layers[:-1])
            is_same = stride == 1 and inputs == outputs
            self.shortcut = nn.Sequential(
                *([] if is_same else _convolution(nn, inputs, outputs, 1, stride))
            )

        def forward(self, x: Any) -> Any:
            return (self.layers(x) + self.shortcut(x)).relu_()

    layers = [*_convolution(nn, 3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, count in enumerate(counts):
        channels = 64 * 2**stage
        for number in range(count):
            layers.append(Block(inputs, channels, 2 if stage and not number else 1))
            inputs = 4 * channels if bottleneck else channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def _convolution(nn: Any, inputs: int, outputs: int, side: int, stride: int) -> list[Any]:
    """Returns a convolution and its BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]

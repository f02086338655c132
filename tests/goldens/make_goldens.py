"""PyTorch's side of the comparisons: writes `goldens.npz` and `state_dicts.json` beside this file.

Run by hand where PyTorch and torchvision are installed; the tests need neither:

    python -m venv torch && torch/bin/pip install torch==2.14.1 torchvision==0.29.1 numpy
    torch/bin/python tests/goldens/make_goldens.py

It takes two minutes on two cores. The versions are stored in the file; the same versions on the
same processor give the same file.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import recipe
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models import resnet

HERE = Path(__file__).parent
DEPTHS = (18, 34, 50, 101)
SIZES = ((224, 224), (225, 193))
CLASSES = 10
NARROW = 8  # a ResNet-18 with an eighth of the channels, in float64
STEPS, DECAY_STEPS = 20, 8
K, ALPHA = 3, 0.1


class NarrowResNet18(resnet.ResNet):
    """torchvision's own ResNet-18 with all channel counts divided by `NARROW`."""

    def __init__(self) -> None:
        super().__init__(resnet.BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
        self.conv1 = nn.Conv2d(3, 64 // NARROW, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64 // NARROW)
        self.fc = nn.Linear(512 // NARROW, CLASSES)

    def _make_layer(self, block, planes, *args, **kwargs):  # type: ignore[no-untyped-def]
        if planes == 64:
            self.inplanes = 64 // NARROW
        return super()._make_layer(block, planes // NARROW, *args, **kwargs)


def build(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Fills a network with the recipe's weights."""
    shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    tensors = {
        name: torch.from_numpy(array).to(dtype) for name, array in recipe.weights(shapes).items()
    }
    counters = {name: torch.tensor(0) for name in shapes if name.endswith("num_batches_tracked")}
    network.to(dtype).load_state_dict(tensors | counters)
    return network


def nchw(images: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).to(dtype)


def nhwc(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def stages(network: resnet.ResNet, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The outputs that our network names, in torchvision's own modules."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    yield "stem", x
    for name in ("layer1", "layer2", "layer3", "layer4"):
        x = getattr(network, name)(x)
        yield name, x


def maps_of(network: resnet.ResNet, x: torch.Tensor) -> torch.Tensor:
    """The paper's network: the fully connected layer as a 1×1 convolution, `[B, C, H, W]`."""
    *_, (_, features) = stages(network, x)
    return functional.conv2d(features, network.fc.weight[:, :, None, None], network.fc.bias)


def gce(scores: torch.Tensor, labels: torch.Tensor, k: int) -> torch.Tensor:
    """GCE as the authors' circle formulates it: the truth to −∞, top-k, cross-entropy at index 0."""
    negatives = scores.scatter(1, labels[:, None], -torch.inf)
    kept = torch.cat([scores.gather(1, labels[:, None]), negatives.topk(k, dim=1).values], dim=1)
    return functional.cross_entropy(kept, torch.zeros_like(labels))


def forward(goldens: dict[str, np.ndarray]) -> None:
    """Evaluation mode, float32: every stage and the scores."""
    for depth in DEPTHS:
        network = getattr(torchvision.models, f"resnet{depth}")(num_classes=CLASSES)
        network = build(network, torch.float32).eval()
        for height, width in SIZES:
            x = nchw(recipe.images(2, height, width), torch.float32)
            key = f"forward/{depth}/{height}x{width}"
            with torch.no_grad():
                for name, output in stages(network, x):
                    goldens[f"{key}/{name}"] = recipe.sketch(nhwc(output))
                goldens[f"{key}/scores"] = network(x).numpy()


def training_step(goldens: dict[str, np.ndarray], key: str, network, dtype, size: int) -> None:  # type: ignore[no-untyped-def]
    """Training mode: scores, loss, gradients, running statistics and BatchNorm's counts."""
    network = build(network, dtype).train()
    counts = {}

    def note(name: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple) -> None:
            del module
            counts[name] = inputs[0].numel() // inputs[0].shape[1]

        return hook

    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(note(name))
    x = nchw(recipe.images(4, size, size), dtype)
    scores = network(x)
    loss = functional.cross_entropy(scores, torch.from_numpy(recipe.labels(4, CLASSES)))
    loss.backward()
    goldens[f"{key}/scores"] = scores.detach().numpy()
    goldens[f"{key}/loss"] = loss.detach().numpy()
    for name, parameter in network.named_parameters():
        goldens[f"{key}/gradient/{name}"] = recipe.sketch(parameter.grad.numpy())
    for name, buffer in network.named_buffers():
        if not name.endswith("num_batches_tracked"):
            goldens[f"{key}/statistics/{name}"] = recipe.sketch(buffer.numpy())
    for name, count in counts.items():
        goldens[f"{key}/count/{name}"] = np.asarray(count)


def twenty_steps(goldens: dict[str, np.ndarray], key: str, loss_name: str) -> None:
    """torch.optim.SGD and StepLR in float64, over two decays of the learning rate."""
    network = build(NarrowResNet18(), torch.float64).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, DECAY_STEPS, gamma=0.1)
    for step in range(STEPS):
        x = nchw(recipe.images(4, 64, 64, seed=step), torch.float64)
        labels = torch.from_numpy(recipe.labels(4, CLASSES, seed=step))
        maps = maps_of(network, x)
        if loss_name == "block":
            shape = tuple(maps.permute(0, 2, 3, 1).shape)
            suppressed = torch.from_numpy(recipe.mask(shape, step)).permute(0, 3, 1, 2)
            maps = torch.where(suppressed, ALPHA * maps, maps)
        scores = maps.mean((2, 3))
        if loss_name == "cross_entropy":
            loss = functional.cross_entropy(scores, labels)
        else:
            loss = gce(scores, labels, K)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    for name, parameter in network.named_parameters():
        goldens[f"{key}/{name}"] = recipe.sketch(parameter.detach().numpy())


def gce_values(goldens: dict[str, np.ndarray]) -> None:
    """GCE on random scores of 200 classes, k = 15, and its gradient."""
    scores = torch.from_numpy(recipe.rng_for("scores", 0).normal(0, 3, (64, 200)))
    scores.requires_grad_()
    loss = gce(scores, torch.from_numpy(recipe.labels(64, 200)), 15)
    loss.backward()
    goldens["gce/loss"] = loss.detach().numpy()
    goldens["gce/gradient"] = recipe.sketch(scores.grad.numpy())


def main() -> None:
    torch.use_deterministic_algorithms(True)
    names = {}
    for depth in (*DEPTHS, 152):
        state = getattr(torchvision.models, f"resnet{depth}")().state_dict()
        names[f"resnet{depth}"] = {name: list(tensor.shape) for name, tensor in state.items()}
    (HERE / "state_dicts.json").write_text(json.dumps(names) + "\n")

    goldens: dict[str, np.ndarray] = {
        "versions": np.asarray([torch.__version__, torchvision.__version__, np.__version__])
    }
    forward(goldens)
    for key, dtype in (("step/50", torch.float64), ("step/50-float32", torch.float32)):
        training_step(goldens, key, torchvision.models.resnet50(num_classes=CLASSES), dtype, 128)
    training_step(goldens, "step/narrow", NarrowResNet18(), torch.float64, 64)
    for loss_name in ("cross_entropy", "gce", "block"):
        twenty_steps(goldens, f"twenty/{loss_name}", loss_name)
    gce_values(goldens)
    np.savez_compressed(HERE / "goldens.npz", **goldens)
    print(f"{len(goldens)} goldens, {(HERE / 'goldens.npz').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

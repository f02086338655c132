"""timm's side of the comparisons of backbones: writes FAMILY.npz and FAMILY.json beside this file.

Run by hand where timm is installed; the tests do not need it:

    python -m venv timm && timm/bin/pip install timm==1.0.31 torch==2.13.0 torchvision==0.28.0 numpy
    timm/bin/python tests/goldens/make_timm.py convnext

A family takes a minute on two cores. FAMILY.npz has sketches of what its members compute in float64 with
the recipe's weights; FAMILY.json has the number of parameters of each listed architecture with a
classifier of 1000 classes, and a digest of the names and shapes of its tensors.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import recipe
import timm
import torch
from families import FAMILIES, Size, digest
from make_goldens import CLASSES, build, nchw, nhwc, training_step
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
STEPS = 10


class Members(NamedTuple):
    """How the members of a family are made and computed.

    Attributes:
      listed: timm's names of the architectures that the package lists.
      create: makes one of them, for a number of classes and images of a size.
      small: makes the small members, for `CLASSES` classes and images of a size.
      stages: the outputs that our backbone names, NHWC; several arrays in a tuple.
    """

    listed: tuple[str, ...]
    create: Callable[[str, int, Size], nn.Module]
    small: Mapping[str, Callable[[Size], nn.Module]]
    stages: Callable[[nn.Module, torch.Tensor], Iterator[tuple[str, tuple[np.ndarray, ...]]]]


def create(name: str, classes: int, size: Size) -> nn.Module:
    """Makes a network that takes images of any size."""
    del size
    return timm.create_model(name, num_classes=classes)


def convnext_stages(network: nn.Module, x: torch.Tensor) -> Iterator[tuple[str, tuple]]:
    x = network.stem(x)
    yield "stem", (nhwc(x),)
    for index, stage in enumerate(network.stages):
        x = stage(x)
        yield f"stages_{index}", (nhwc(x),)


def narrow_convnext(size: Size) -> nn.Module:
    del size
    depths, channels = (1, 1, 2, 1), (8, 12, 16, 24)
    return timm.models.ConvNeXt(depths=depths, dims=channels, num_classes=CLASSES)


MEMBERS: Mapping[str, Members] = {
    "convnext": Members(
        tuple(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
        create,
        {"narrow": narrow_convnext},
        convnext_stages,
    ),
}


def forward(goldens: dict[str, np.ndarray], key: str, network: nn.Module, stages, size) -> None:  # type: ignore[no-untyped-def]
    """Evaluation mode, float64: every stage, the pooled features and the scores."""
    network = build(network, torch.float64).eval()
    x = nchw(recipe.images(2, *size), torch.float64)
    with torch.no_grad():
        for name, outputs in stages(network, x):
            flat = np.concatenate([output.ravel() for output in outputs])
            goldens[f"{key}/stage/{name}"] = recipe.sketch(flat)
        features = network.forward_features(x)
        goldens[f"{key}/features"] = recipe.sketch(network.forward_head(features, pre_logits=True))
        goldens[f"{key}/scores"] = network(x).numpy()


def ten_steps(goldens: dict[str, np.ndarray], key: str, network: nn.Module, size: int) -> None:
    """torch.optim.SGD in float64 with cross-entropy."""
    network = build(network, torch.float64).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    for step in range(STEPS):
        x = nchw(recipe.images(4, size, size, seed=step), torch.float64)
        labels = torch.from_numpy(recipe.labels(4, CLASSES, seed=step))
        loss = functional.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"{key}, step {step}: loss {loss.item():.4f}")
    for name, parameter in network.named_parameters():
        goldens[f"{key}/{name}"] = recipe.sketch(parameter.detach().numpy())


def main(name: str) -> None:
    torch.use_deterministic_algorithms(True)
    family, members = FAMILIES[name], MEMBERS[name]
    architectures = {}
    for architecture in members.listed:
        with torch.device("meta"):
            network = members.create(architecture, 1000, (224, 224))
        shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        count = sum(parameter.numel() for parameter in network.parameters())
        architectures[architecture] = {"parameters": count, "digest": digest(shapes)}
    (HERE / f"{name}.json").write_text(json.dumps(architectures, indent=1) + "\n")

    goldens: dict[str, np.ndarray] = {
        "versions": np.asarray([timm.__version__, torch.__version__, np.__version__])
    }
    for size in family.sizes:
        for member in family.small:
            key = f"forward/{member}/{size[0]}x{size[1]}"
            forward(goldens, key, members.small[member](size), members.stages, size)
    for architecture, size in family.full.items():
        key = f"forward/{architecture}/{size[0]}x{size[1]}"
        network = members.create(architecture, CLASSES, size)
        forward(goldens, key, network, members.stages, size)
    first, side = family.small[0], family.train_size
    create_first = members.small[first]
    training_step(goldens, "step", create_first((side, side)), torch.float64, side)
    ten_steps(goldens, "ten", create_first((side, side)), side)
    np.savez_compressed(HERE / f"{name}.npz", **goldens)
    print(f"{len(goldens)} goldens, {(HERE / f'{name}.npz').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1])

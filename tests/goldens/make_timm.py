"""timm's side of the comparisons of backbones: writes FAMILY.npz and FAMILY.json beside this file.

Run by hand where timm is installed; the tests do not need it:

    python -m venv timm && timm/bin/pip install timm==1.0.31 torch==2.13.0 torchvision==0.28.0 numpy
    timm/bin/python tests/goldens/make_timm.py convnext

A family takes a minute on two cores. FAMILY.npz has sketches of what its members compute in float64 with
the recipe's weights. FAMILY.json has, for each listed architecture with 1000 classes and images of
224×224 pixels, the number of parameters and a digest of the names and shapes of all tensors, and what
timm says of its weights on the Hugging Face hub; resnet.json has this alone.
"""

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import recipe
import timm
import torch
from families import FAMILIES, POSITIONS, Size, digest
from make_goldens import CLASSES, build, nchw, nhwc, training_step
from timm.layers import resample_abs_pos_embed
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
STEPS = 10
_OF_HUB = ("mean", "std", "license")


class Members(NamedTuple):
    """How the members of a family are made and computed.

    Attributes:
      listed: timm's names of the architectures that the package lists.
      create: makes one of them, for a number of classes and images of a size.
      small: makes the small members, for `CLASSES` classes and images of a size.
      stages: the outputs that our backbone names, each as a tuple of arrays, NHWC.
      more: adds goldens of this family alone.
    """

    listed: tuple[str, ...]
    create: Callable[[str, int, Size], nn.Module]
    small: Mapping[str, Callable[[Size], nn.Module]]
    stages: Callable[[nn.Module, torch.Tensor], Iterator[tuple[str, tuple[np.ndarray, ...]]]]
    more: Callable[[dict[str, np.ndarray]], None] = lambda goldens: None  # noqa: ARG005


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


def efficientnet_stages(network: nn.Module, x: torch.Tensor) -> Iterator[tuple[str, tuple]]:
    x = network.bn1(network.conv_stem(x))
    yield "stem", (nhwc(x),)
    for index, stage in enumerate(network.blocks):
        x = stage(x)
        yield f"blocks_{index}", (nhwc(x),)
    yield "head", (nhwc(network.bn2(network.conv_head(x))),)


def narrow_efficientnet(size: Size, *, lite: bool, tensorflow: bool) -> nn.Module:
    del size
    module = timm.models.efficientnet
    generate = module._gen_efficientnet_lite if lite else module._gen_efficientnet
    kwargs = {"pad_type": "same", "bn_eps": 1e-3} if tensorflow else {}
    variant = "efficientnet_lite0" if lite else "efficientnet_b0"
    return generate(
        variant, channel_multiplier=0.25, depth_multiplier=0.3, num_classes=CLASSES, **kwargs
    )


def create_vit(name: str, classes: int, size: Size) -> nn.Module:
    """A ViT whose features are the average of its patch tokens."""
    pooling = {"global_pool": "avg", "fc_norm": False}
    return timm.create_model(name, num_classes=classes, img_size=size, **pooling)


def narrow_vit(size: Size, **kwargs: Any) -> nn.Module:
    pooling = {"global_pool": "avg", "fc_norm": False}
    numbers = {"patch_size": 8, "embed_dim": 32, "depth": 5, "num_heads": 4}
    return timm.models.VisionTransformer(
        size, num_classes=CLASSES, weight_init="skip", **numbers, **pooling, **kwargs
    )


def vit_stages(network: nn.Module, x: torch.Tensor) -> Iterator[tuple[str, tuple]]:
    rows, columns = network.patch_embed.grid_size
    count, depth = network.num_prefix_tokens, len(network.blocks)

    def parts(tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        cells = tokens[:, count:].unflatten(1, (rows, columns))
        return cells.numpy(), tokens[:, :count].numpy()

    x = network._pos_embed(network.patch_embed(x))
    yield "embedding", parts(x)
    for group in range(4):
        for block in network.blocks[depth * group // 4 : depth * (group + 1) // 4]:
            x = block(x)
        yield f"blocks{group + 1}", parts(x)
    yield "last_norm", parts(network.norm(x))[:1]


def vit_positions(goldens: dict[str, np.ndarray]) -> None:
    """Timm's interpolation of position embeddings, which it computes in float32, in float64."""
    for prefix, old, new in POSITIONS:
        embeddings = torch.from_numpy(recipe.positions(prefix, old))
        with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
            resampled = resample_abs_pos_embed(
                embeddings, [new, new], num_prefix_tokens=prefix
            ).numpy()
        assert resampled.dtype == np.float64
        goldens[f"positions/{prefix}/{old}-{new}"] = recipe.sketch(resampled)


MEMBERS: Mapping[str, Members] = {
    "convnext": Members(
        tuple(f"convnext_{size}" for size in ("tiny", "small", "base", "large")),
        create,
        {"narrow": narrow_convnext},
        convnext_stages,
    ),
    "efficientnet": Members(
        tuple(
            f"{prefix}{size}"
            for prefix in ("efficientnet_lite", "tf_efficientnet_lite", "tf_efficientnet_b")
            for size in range(5)
        ),
        create,
        {
            "narrow_tf_b": functools.partial(narrow_efficientnet, lite=False, tensorflow=True),
            "narrow_tf_lite": functools.partial(narrow_efficientnet, lite=True, tensorflow=True),
            "narrow_lite": functools.partial(narrow_efficientnet, lite=True, tensorflow=False),
        },
        efficientnet_stages,
    ),
    "vit": Members(
        tuple(
            f"vit_{size}_{kind}"
            for kind in ("patch16_224", "patch14_dinov2", "patch14_reg4_dinov2")
            for size in ("small", "base", "large")
        ),
        create_vit,
        {
            "class_token": narrow_vit,
            "registers": functools.partial(
                narrow_vit, init_values=1e-5, reg_tokens=4, no_embed_class=True
            ),
        },
        vit_stages,
        vit_positions,
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


def on_hub(architecture: str) -> dict[str, dict[str, Any]]:
    """What timm says of an architecture's weights on the hub, by their tags."""
    found = {}
    for full_name in timm.list_pretrained(f"{architecture}.*"):
        cfg = timm.get_pretrained_cfg(full_name).to_dict()
        found[full_name.partition(".")[2]] = {key: cfg.get(key) for key in _OF_HUB}
    return found


def main(name: str) -> None:
    if name == "resnet":  # compared with torchvision's numbers
        weights = {f"resnet{depth}": on_hub(f"resnet{depth}") for depth in (18, 34, 50, 101, 152)}
        (HERE / "resnet.json").write_text(json.dumps(weights) + "\n")
        return
    torch.use_deterministic_algorithms(True)
    family, members = FAMILIES[name], MEMBERS[name]
    architectures = {}
    for architecture in members.listed:
        with torch.device("meta"):
            network = members.create(architecture, 1000, (224, 224))
        shapes = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
        count = sum(parameter.numel() for parameter in network.parameters())
        architectures[architecture] = {
            "parameters": count,
            "digest": digest(shapes),
            "hub": on_hub(architecture),
        }
    (HERE / f"{name}.json").write_text(json.dumps(architectures) + "\n")

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
    members.more(goldens)
    np.savez_compressed(HERE / f"{name}.npz", **goldens)
    print(f"{len(goldens)} goldens, {(HERE / f'{name}.npz').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1])

"""A weight file that does not fit the config's backbone is told by the architecture that it is of."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from networks import shapes_of, traced_faster

from fgr_jax import config as config_lib
from fgr_jax.errors import UserError
from fgr_jax.models.backbones import BACKBONES
from fgr_jax.models.backbones.interface import Backbone
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network
from fgr_jax.models.weights import recognition
from fgr_jax.models.weights.pretrained import start_from
from fgr_jax.models.weights.recognition import recognized
from fgr_jax.models.weights.table import Tensors, to_tensors


@pytest.fixture(autouse=True)
def _traced_faster() -> Iterator[None]:
    with traced_faster():
        yield


@functools.cache
def network_and_zeros(name: str, width: float = 1) -> tuple[Network, Any]:
    """A listed network, and variables of its shapes of one byte each."""
    backbone: Any = BACKBONES[name](config_lib.Network(backbone=name, width=width))
    network = Network(backbone, CamHead(10))
    like = shapes_of(network, 224, 224)
    return network, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.bool_), like)


def file_of(name: str) -> Tensors:
    network, variables = network_and_zeros(name)
    return to_tensors(variables, network.table)


def refused(tensors: Tensors, backbone: str, folder: Path, width: float = 1) -> str:
    """The error for a file where a network is needed."""
    path = folder / "w.safetensors"
    safetensors.numpy.save_file(tensors, path)
    section = config_lib.Network(backbone=backbone, width=width)
    network, like = network_and_zeros(backbone, width)
    with pytest.raises(UserError) as caught:
        start_from(str(path), like, network.table, section)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 900  # DINOv2's list of 150 tensors is longer
    return message.replace(str(path), "w")


# One of each kind of file, and the backbones that fit it.
FILES = {
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "convnext_small": "convnext_small",
    "efficientnet_lite1": "efficientnet_lite1 or tf_efficientnet_lite1",
    "tf_efficientnet_b0": "tf_efficientnet_b0",
    "vit_small_patch16_224": "vit_small_patch16_224",
    "vit_small_patch14_dinov2": "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2": "vit_small_patch14_reg4_dinov2",
}
MORE = ("resnet", "resnet18", "convnext_tiny", "vit_large_patch16_224")


@pytest.mark.parametrize(("name", "expected"), FILES.items())
def test_files_of_every_family_are_recognized(
    name: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {each: BACKBONES[each] for each in (*MORE, *" or ".join(FILES.values()).split(" or "))}
    monkeypatch.setattr(recognition, "BACKBONES", few)
    other = "convnext_tiny" if "resnet" in name else "resnet18"
    tensors = file_of(name)
    first = expected.partition(" ")[0]
    assert refused(tensors, other, tmp_path) == (
        f"--config.pretrained=w has the weights of {expected}, which is not the backbone of the config: "
        f"pass --config.network.backbone={first}"
    )
    # One without a classifier and, from older PyTorch, without counters, is recognized, too.
    classifier = ("fc.", "classifier.", "head.fc.", "head.weight", "head.bias")
    part = {
        key: tensor
        for key, tensor in tensors.items()
        if not key.startswith(classifier) and not key.endswith("num_batches_tracked")
    }
    assert recognized(part) == (expected.split(" or "), True)
    for key in [*part][::10]:  # what is left of it is similar
        del part[key]
    assert recognized(part) == (expected.split(" or "), False)


def test_a_similar_file_is_named_after_the_tensors(tmp_path: Path) -> None:
    tensors = file_of("vit_small_patch14_dinov2")
    del tensors["norm.weight"]
    message = refused(tensors, "resnet18", tmp_path)
    begin = "w does not fit the network of the config; missing: bn1.running_mean, "
    assert message.startswith(begin), message
    assert re.search(r"; left over: (blocks[\w.]+, ){2}blocks[\w.]+ and 172 more; ", message)
    assert message.endswith(" more; it looks like vit_small_patch14_dinov2")


def test_weights_of_another_width_are_told(tmp_path: Path) -> None:
    name = "vit_small_patch16_224"
    message = refused(file_of(name), name, tmp_path, width=0.5)
    assert "of the wrong shape: blocks.0." in message
    assert message.endswith(f"; it has the weights of {name} with --config.network.width=1")


def test_what_is_like_no_listed_architecture_is_not_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = []

    def shapes_of(backbone: Backbone) -> recognition.Shapes:
        traced.append(type(backbone))
        return original(backbone)

    original = recognition._shapes
    monkeypatch.setattr(recognition, "_shapes", shapes_of)
    tensors = {"encoder.weight": np.zeros((2, 2), np.float32)}
    message = refused(tensors, "resnet18", tmp_path)
    assert message.endswith("; left over: encoder.weight")
    assert len(traced) == len(set(traced)) == 4  # one of each family
    # Names alone are not enough.
    shapes = {name: np.zeros((2, 3), np.bool_) for name in file_of("resnet18")}
    assert recognized(shapes) == ([], False)

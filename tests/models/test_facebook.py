"""Files with the names of facebook's ConvNeXt and DINOv2, made from our weights, give equal outputs."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch_pickles
from goldens import recipe
from parity import variables_of

from fgr_jax import config as config_lib
from fgr_jax.models.backbones.convnext import ConvNeXt
from fgr_jax.models.backbones.vit import ViT
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network
from fgr_jax.models.weights.facebook import with_names_of_timm
from fgr_jax.models.weights.pretrained import start_from
from fgr_jax.models.weights.table import Tensors, to_tensors

SIDE = 64
VIT: dict[str, Any] = {
    "patch_size": 16,
    "depth": 4,
    "heads": 2,
    "channels": 16,
    "layer_scale": True,
}
BACKBONES: dict[str, Any] = {
    "convnext": ConvNeXt(depths=(1, 2, 1, 1), channels=(4, 6, 8, 10)),
    "dinov2": ViT(**VIT),
    "dinov2 with registers": ViT(registers=2, **VIT),
}


def of_convnext(tensors: Tensors) -> Tensors:
    """The names of facebookresearch/ConvNeXt."""
    ends = {"conv_dw": "dwconv", "mlp.fc1": "pwconv1", "mlp.fc2": "pwconv2", "norm": "norm"}
    renamed = {}
    for name, tensor in tensors.items():
        match name.split("."):
            case ["stem", index, end]:
                other = f"downsample_layers.0.{index}.{end}"
            case ["stages", stage, "downsample", index, end]:
                other = f"downsample_layers.{stage}.{index}.{end}"
            case ["stages", stage, "blocks", block, "gamma"]:
                other = f"stages.{stage}.{block}.gamma"
            case ["stages", stage, "blocks", block, *module, end]:
                other = f"stages.{stage}.{block}.{ends['.'.join(module)]}.{end}"
            case ["head", module, end]:
                other = {"norm": "norm", "fc": "head"}[module] + f".{end}"
        renamed[other] = tensor
    return renamed


def of_dinov2(tensors: Tensors) -> Tensors:
    """The names of facebookresearch/dinov2, which has no classifier, and a position of every token."""
    renamed = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    channels = renamed["cls_token"].shape[-1]
    renamed["mask_token"] = np.ones((1, channels), np.float32)
    if "reg_token" in renamed:
        renamed["register_tokens"] = renamed.pop("reg_token")
        # Added and subtracted without rounding.
        position = np.full((1, 1, channels), 0.25, np.float32)
        renamed["cls_token"] = renamed["cls_token"] - position
        renamed["pos_embed"] = np.concatenate([position, renamed["pos_embed"]], axis=1)
    return renamed


@pytest.mark.parametrize(
    ("kind", "nested"),
    [
        ("convnext", ("model",)),
        ("convnext", ("model_ema", "model")),
        ("dinov2", ()),
        ("dinov2 with registers", ("state_dict",)),
        ("dinov2 with registers", ("teacher",)),
    ],
)
def test_a_file_with_original_names_gives_equal_outputs(
    kind: str, nested: tuple[str, ...], tmp_path: Path
) -> None:
    network = Network(BACKBONES[kind], CamHead(3))
    variables = variables_of(network, SIDE)
    if "cls_token" in variables["params"]["backbone"]:
        token = variables["params"]["backbone"]["cls_token"]
        variables["params"]["backbone"]["cls_token"] = np.round(token * 64) / 64
    like = jax.tree.map(np.zeros_like, variables)
    tensors = to_tensors(variables, network.table)
    theirs = of_convnext(tensors) if kind == "convnext" else of_dinov2(tensors)
    assert theirs.keys() - tensors.keys()
    if "teacher" in nested:  # a checkpoint of DINOv2's training
        theirs = {f"backbone.{name}": tensor for name, tensor in theirs.items()}
        theirs["dino_head.last_layer.weight"] = np.zeros((2, 2), np.float32)
    whole: Any = theirs
    # The first of `nested` is taken; the weights under another name are others.
    if nested:
        others = {name: tensor + 1 for name, tensor in theirs.items()}
        whole = {"epoch": 3} | dict.fromkeys(nested[1:], others) | {nested[0]: theirs}
    path = torch_pickles.save(whole, tmp_path / "w.pth")
    section = config_lib.Network(backbone="of_this_test.py:backbone")
    started = start_from(str(path), like, network.table, section)
    assert started.weights == f"{path}, license not known"
    if "head.weight" not in theirs and "backbone.head.weight" not in theirs:
        assert started.line.endswith("classifier initialized, for 3 classes")
        classifier = variables["params"]["classifier"]
        started.variables["params"]["classifier"] = classifier
    images = jnp.asarray(recipe.images(2, SIDE, SIDE), jnp.float32)
    apply: Any = jax.jit(functools.partial(network.apply, train=False))
    outputs, expected = apply(started.variables, images), apply(variables, images)
    assert len(set(np.asarray(expected.scores).ravel())) == 6
    np.testing.assert_array_equal(outputs.scores, expected.scores)
    np.testing.assert_array_equal(outputs.features, expected.features)


def test_other_names_are_kept() -> None:
    tensor = np.zeros(1)
    for names in (
        ["norm.weight", "head.weight", "stages.0.0.gamma"],  # of a ViT, or of nobody
        ["downsample_layers.0.0.weight", "grn.beta"],
        ["backbone.cls_token"],
        ["register_tokens"],
    ):
        converted = with_names_of_timm(dict.fromkeys(names, tensor))
        expected = ["stem.0.weight" if "downsample" in name else name for name in names]
        assert [*converted] == expected

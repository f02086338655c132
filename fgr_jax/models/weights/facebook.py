"""Weights with the names of facebook's ConvNeXt and DINOv2, converted to timm's."""

import re
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

Tensors = dict[str, npt.NDArray[Any]]

_OF_CONVNEXT = "downsample_layers.0.0.weight"
_CONVNEXT_NAMES = (
    (r"downsample_layers\.0\.(\d\.\w+)", r"stem.\1"),
    (r"downsample_layers\.(\d)\.(\d\.\w+)", r"stages.\1.downsample.\2"),
    (r"stages\.(\d)\.(\d+)\.dwconv\.(\w+)", r"stages.\1.blocks.\2.conv_dw.\3"),
    (r"stages\.(\d)\.(\d+)\.pwconv(\d)\.(\w+)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
    (r"stages\.(\d)\.(\d+)\.(norm\.\w+|gamma)", r"stages.\1.blocks.\2.\3"),
    (r"norm\.(\w+)", r"head.norm.\1"),
    (r"head\.(\w+)", r"head.fc.\1"),
)

_MASK_TOKEN = "mask_token"
# A checkpoint of DINOv2's training also has the heads of its losses.
_OF_BACKBONE = "backbone."


def with_names_of_timm(tensors: Mapping[str, npt.NDArray[Any]]) -> Tensors:
    """Returns the tensors with timm's names; those that have others already keep them."""
    if _OF_CONVNEXT in tensors:
        return {_renamed(name): tensor for name, tensor in tensors.items()}
    if _OF_BACKBONE + _MASK_TOKEN in tensors:
        tensors = {
            name.removeprefix(_OF_BACKBONE): tensor
            for name, tensor in tensors.items()
            if name.startswith(_OF_BACKBONE)
        }
    return _from_dinov2(tensors)


def _renamed(name: str) -> str:
    """Returns timm's name of a tensor of ConvNeXt."""
    for pattern, timms in _CONVNEXT_NAMES:
        if match := re.fullmatch(pattern, name):
            return match.expand(timms)
    return name


def _from_dinov2(tensors: Mapping[str, npt.NDArray[Any]]) -> Tensors:
    """Returns the tensors of timm's ViTs, which have no mask token, the input of DINOv2's own loss.

    With registers, the position embedding of the class token, which comes first, is part of the class
    token in timm.
    """
    converted = {name: tensor for name, tensor in tensors.items() if name != _MASK_TOKEN}
    if "register_tokens" in converted and {"cls_token", "pos_embed"} <= converted.keys():
        positions = converted["pos_embed"]
        converted["reg_token"] = converted.pop("register_tokens")
        converted["cls_token"] = converted["cls_token"] + positions[:, :1]
        converted["pos_embed"] = positions[:, 1:]
    return converted

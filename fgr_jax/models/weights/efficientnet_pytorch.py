"""Weights with the names of efficientnet-pytorch and efficientnet-lite-pytorch, converted to timm's.

Those packages number the blocks of all stages together, and BatchNorm from 0.
"""

import re
from collections.abc import Mapping
from typing import TypeVar

import numpy.typing as npt

_Tensor = TypeVar("_Tensor", bound=npt.NDArray)

_MARK = "_conv_stem.weight"  # of these names
_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_IN_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
# In timm, a block that does not expand is a depthwise separable convolution.
_IN_BLOCK_WITHOUT_EXPANSION = _IN_BLOCK | {
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def with_names_of_timm(tensors: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """Returns the tensors with timm's names; those that have others already keep them."""
    if _MARK not in tensors:
        return dict(tensors)
    places = _places(tensors)
    return {_renamed(name, places, tensors): tensor for name, tensor in tensors.items()}


def _places(tensors: Mapping[str, npt.NDArray]) -> list[str]:
    """Returns the stage and the number therein of each block, as in timm's names.

    Only a stage's first block changes the number of channels.
    """
    places: list[str] = []
    channels, stage, number = None, -1, 0
    while (projection := f"_blocks.{len(places)}._project_conv.weight") in tensors:
        stage, number = (
            (stage, number + 1) if tensors[projection].shape[:1] == channels else (stage + 1, 0)
        )
        channels = tensors[projection].shape[:1]
        places.append(f"{stage}.{number}")
    return places


def _renamed(name: str, places: list[str], tensors: Mapping[str, npt.NDArray]) -> str:
    of_block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)(\.\w+)", name)
    if of_block:
        index, module, end = of_block.groups()
        expands = f"_blocks.{index}._expand_conv.weight" in tensors
        names = _IN_BLOCK if expands else _IN_BLOCK_WITHOUT_EXPANSION
        if int(index) < len(places) and module in names:
            return f"blocks.{places[int(index)]}.{names[module]}{end}"
        return name
    module, dot, end = name.rpartition(".")
    return _OUTSIDE.get(module, module) + dot + end

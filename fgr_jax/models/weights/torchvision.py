"""The correspondence between our variables and torchvision's ResNet tensors, as a table.

It is used in both directions. timm's `resnet*.tv_in1k` files have torchvision's names too.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import numpy as np
import numpy.typing as npt

from fgr_jax.errors import UserError

Array = npt.NDArray[Any]
Tensors = dict[str, Array]  # by torchvision's names
Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}, as `Network.init` gives them


class Layout(NamedTuple):
    """Conversions of a tensor's axes between the two layouts."""

    to_ours: Callable[[Array], Array]
    to_torch: Callable[[Array], Array]


AS_IT_IS = Layout(lambda tensor: tensor, lambda array: array)
CONVOLUTION = Layout(  # OIHW and HWIO
    lambda tensor: tensor.transpose(2, 3, 1, 0), lambda array: array.transpose(3, 2, 0, 1)
)
FULLY_CONNECTED = Layout(  # [C, D] and the equivalent kernel of a 1×1 convolution
    lambda tensor: tensor.T[None, None], lambda array: array[0, 0].T
)

# fmt: off
TABLE = (
    # our path                                                  torchvision's name                      layout
    (r"params/backbone/conv1/kernel",                           r"conv1.weight",                        CONVOLUTION),
    (r"params/backbone/layer(\d)_(\d+)/(conv\d)/kernel",        r"layer\1.\2.\3.weight",                CONVOLUTION),
    (r"params/backbone/layer(\d)_(\d+)/downsample_conv/kernel", r"layer\1.\2.downsample.0.weight",      CONVOLUTION),
    (r"params/backbone/bn1/scale",                              r"bn1.weight",                          AS_IT_IS),
    (r"params/backbone/layer(\d)_(\d+)/(bn\d)/scale",           r"layer\1.\2.\3.weight",                AS_IT_IS),
    (r"params/backbone/layer(\d)_(\d+)/downsample_bn/scale",    r"layer\1.\2.downsample.1.weight",      AS_IT_IS),
    (r"params/backbone/bn1/bias",                               r"bn1.bias",                            AS_IT_IS),
    (r"params/backbone/layer(\d)_(\d+)/(bn\d)/bias",            r"layer\1.\2.\3.bias",                  AS_IT_IS),
    (r"params/backbone/layer(\d)_(\d+)/downsample_bn/bias",     r"layer\1.\2.downsample.1.bias",        AS_IT_IS),
    (r"batch_stats/backbone/bn1/mean",                          r"bn1.running_mean",                    AS_IT_IS),
    (r"batch_stats/backbone/layer(\d)_(\d+)/(bn\d)/mean",       r"layer\1.\2.\3.running_mean",          AS_IT_IS),
    (r"batch_stats/backbone/layer(\d)_(\d+)/downsample_bn/mean", r"layer\1.\2.downsample.1.running_mean", AS_IT_IS),
    (r"batch_stats/backbone/bn1/var",                           r"bn1.running_var",                     AS_IT_IS),
    (r"batch_stats/backbone/layer(\d)_(\d+)/(bn\d)/var",        r"layer\1.\2.\3.running_var",           AS_IT_IS),
    (r"batch_stats/backbone/layer(\d)_(\d+)/downsample_bn/var", r"layer\1.\2.downsample.1.running_var", AS_IT_IS),
    (r"params/classifier/kernel",                               r"fc.weight",                           FULLY_CONNECTED),
    (r"params/classifier/bias",                                 r"fc.bias",                             AS_IT_IS),
)
# fmt: on

_CLASSIFIER = ("fc.weight", "fc.bias")
_COUNTER = "num_batches_tracked"  # of PyTorch's BatchNorm, which uses it only without a momentum


def from_torchvision(tensors: Mapping[str, Array], like: Variables, where: str) -> Variables:
    """Places every tensor of a torchvision ResNet into variables shaped like `like`.

    Only a classifier for another number of classes may differ: then that of `like` is kept.

    Args:
      tensors: the file's tensors by name.
      like: variables of the network; values are kept where no tensor is placed.
      where: the file, for the error message.

    Raises:
      UserError: tensors are missing, left over or of the wrong shape; all are listed.
    """
    ours = flax.traverse_util.flatten_dict(like, sep="/")
    takes_classifier = has_classifier(tensors, like)
    placed = dict(ours)
    left_over = dict.fromkeys(name for name in tensors if not name.endswith(_COUNTER))
    missing, misshapen = [], []
    for path, value in ours.items():
        name, layout = _torch_name(path)
        left_over.pop(name, None)
        if name in _CLASSIFIER and not takes_classifier:
            continue
        needed = layout.to_torch(np.empty(value.shape, np.bool_)).shape
        if name not in tensors:
            missing.append(name)
        elif tensors[name].shape != needed:
            misshapen.append(f"{name} {list(tensors[name].shape)}, not {list(needed)}")
        else:
            placed[path] = layout.to_ours(tensors[name]).astype(value.dtype)
    problems = {"missing": missing, "left over": left_over, "of the wrong shape": misshapen}
    found = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
    if found:
        raise UserError(f"{where} does not fit the network of the config; {'; '.join(found)}")
    return flax.traverse_util.unflatten_dict(placed, sep="/")


def has_classifier(tensors: Mapping[str, Array], like: Variables) -> bool:
    """Returns whether `tensors` contain a classifier with as many classes as `like`."""
    bias = like["params"].get("classifier", {}).get("bias")
    return bias is not None and all(
        name in tensors and tensors[name].shape[0] == len(bias) for name in _CLASSIFIER
    )


def to_torchvision(variables: Variables) -> Tensors:
    """Returns all variables with torchvision's names and layouts.

    Raises:
      UserError: a variable has no counterpart in torchvision's ResNets.
    """
    tensors: Tensors = {}
    for path, value in flax.traverse_util.flatten_dict(variables, sep="/").items():
        name, layout = _torch_name(path)
        tensors[name] = np.ascontiguousarray(layout.to_torch(np.asarray(value)))
        if name.endswith("running_var"):  # required by torch's strict loading
            tensors[name.replace("running_var", _COUNTER)] = np.zeros((), np.int64)
    return tensors


def _torch_name(path: str) -> tuple[str, Layout]:
    for pattern, name, layout in TABLE:
        match = re.fullmatch(pattern, path)
        if match:
            return match.expand(name), layout
    raise UserError(
        f"the parameter {path} has no counterpart in torchvision's ResNets: only their weights can be "
        "exported or started from; --config.pretrained= starts from random weights"
    )

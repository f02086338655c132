"""Pretrained weights: the config field `pretrained`."""

from pathlib import Path
from typing import NamedTuple

import safetensors.numpy
from jax.experimental import multihost_utils

from fgr_jax import config as config_lib
from fgr_jax.distributed import once_for_all
from fgr_jax.errors import UserError
from fgr_jax.files.buckets import is_in_bucket
from fgr_jax.files.local import local_path
from fgr_jax.models.network import inference_variables
from fgr_jax.models.weights import efficientnet_pytorch, facebook, published
from fgr_jax.models.weights.published import FLAG, PACKAGES
from fgr_jax.models.weights.recognition import recognized
from fgr_jax.models.weights.table import (
    OWN_PATHS,
    OtherArchitectureError,
    Table,
    Tensors,
    Variables,
    from_tensors,
    has_classifier,
    to_tensors,
)
from fgr_jax.models.weights.torch_files import read_torch_file
from fgr_jax.runs import checkpoints
from fgr_jax.runs.provenance import starting_weights
from fgr_jax.runs.workdir import Workdir


class Start(NamedTuple):
    """What a network starts from.

    Attributes:
      variables: the parameters and running statistics.
      line: describes what was taken.
      weights: where they come from, with their license; on process 0 alone.
      with_head: whether those of the head were taken, too.
    """

    variables: Variables
    line: str
    weights: str
    with_head: bool


def start_from(
    pretrained: str, variables: Variables, table: Table, network: config_lib.Network
) -> Start:
    """Returns what a network starts from.

    Args:
      pretrained: a `.safetensors` or `.pth` file, the workdir of another run, a hub name such as
        "timm/resnet50.tv_in1k", or "efficientnet-lite0", 1 or 2 for the weights in the packages of
        the extra `weights`.
      variables: the initialized network; its head is kept if it is another or for other classes.
      table: the names of its variables in weight files.
      network: the section `network` of the config.

    Raises:
      UserError: there is no such file, it is damaged, or it does not fit.
    """
    backbone = f"resnet{network.depth}" if network.backbone == "resnet" else network.backbone

    def read() -> tuple[Variables, bool, str]:
        found, weights = _find(pretrained, backbone)
        tensors, names = _tensors(found), OWN_PATHS if isinstance(found, Workdir) else table
        try:
            placed = from_tensors(tensors, variables, names, pretrained)
        except OtherArchitectureError as error:
            if names is OWN_PATHS:
                raise
            raise _with_architecture(error, tensors, pretrained, backbone) from None
        return placed, has_classifier(tensors, variables, names), weights

    # One process reads (and downloads) for all, so the hub is queried once.
    placed, taken, weights = once_for_all(read) or (variables, False, "")
    started, taken = multihost_utils.broadcast_one_to_all((placed, taken))
    bias = variables["params"].get("classifier", {}).get("bias")  # other heads have several
    classes = "" if bias is None else f", for {len(bias)} classes"
    classifier = "taken" if taken else f"initialized{classes}"
    return Start(
        started, f"backbone from {pretrained}, classifier {classifier}", weights, bool(taken)
    )


def _find(pretrained: str, backbone: str) -> tuple[Path | Workdir, str]:
    """Returns the file or the run that a name stands for, and its name with the license.

    Published weights are downloaded.
    """
    is_run = is_in_bucket(pretrained) or local_path(pretrained, FLAG).is_dir()
    if is_run:
        run = Workdir.open(pretrained, flag=FLAG)
        theirs = starting_weights(run.local) or "weights that are not recorded"
        return run, f"{pretrained}, which started from {theirs}"
    path = local_path(pretrained, FLAG)
    if path.is_file():
        return path, f"{pretrained}, license not known"
    if published.is_published(pretrained):
        published.check_is_for(pretrained, backbone)
        license_of_them = published.license_of(pretrained) or "not known"
        return published.find(pretrained), f"{pretrained}, license {license_of_them}"
    raise UserError(
        f"{FLAG}={pretrained}: no such file or folder, and not the name of a model on the Hugging Face "
        f'hub, such as "timm/resnet50.tv_in1k", or one of {", ".join(PACKAGES)}'
    )


def _with_architecture(
    error: OtherArchitectureError, tensors: Tensors, pretrained: str, backbone: str
) -> UserError:
    """Returns the error for weights that do not fit, which names their architecture if it is listed."""
    names, is_exact = recognized(tensors)
    if not names:
        return error
    if not is_exact:
        return UserError(f"{error}; it looks like {' or '.join(names)}")
    if backbone in names:
        return UserError(f"{error}; it has the weights of {backbone} with --config.network.width=1")
    return UserError(
        f"{FLAG}={pretrained} has the weights of {' or '.join(names)}, which is not the backbone of the "
        f"config: pass --config.network.backbone={names[0]}"
    )


def _tensors(found: Path | Workdir) -> Tensors:
    """Reads weights, with timm's names or, of a run, the paths of its variables."""
    if isinstance(found, Workdir):
        state = checkpoints.read_latest(found.checkpoints)
        return to_tensors(inference_variables(state), OWN_PATHS)
    tensors = read_torch_file(found) if _is_of_pytorch(found) else _read_safetensors(found)
    return facebook.with_names_of_timm(efficientnet_pytorch.with_names_of_timm(tensors))


def _is_of_pytorch(path: Path) -> bool:
    """Returns whether a file was written by torch.save: its content tells, whatever its name says."""
    with path.open("rb") as file:
        beginning = file.read(9)
    if beginning.startswith((b"PK\3\4", b"\x80")):  # an archive, or the older pickle
        return True
    return path.suffix == ".pth" and beginning[8:] != b"{"


def _read_safetensors(path: Path) -> Tensors:
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        message = f"{path} is damaged or cut off ({error}): copy it again"
        raise UserError(message) from error

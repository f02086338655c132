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
from fgr_jax.models.weights.table import (
    OWN_PATHS,
    Table,
    Tensors,
    Variables,
    from_tensors,
    has_classifier,
    to_tensors,
)
from fgr_jax.runs import checkpoints
from fgr_jax.runs.workdir import Workdir

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILE = "model.safetensors"


def start_from(pretrained: str, variables: Variables, table: Table) -> tuple[Variables, str]:
    """Returns the variables that a network starts from, and a line that describes them.

    Args:
      pretrained: a `.safetensors` or `.pth` file, the workdir of another run, or a hub name such as
        "timm/resnet50.tv_in1k".
      variables: the initialized network; its classifier is kept if the number of classes differs.
      table: the names of its variables in weight files.

    Raises:
      UserError: there is no such file, it is damaged, or it does not fit.
    """

    def read() -> tuple[Variables, bool]:
        tensors, names = _read(pretrained, table)
        placed = from_tensors(tensors, variables, names, pretrained)
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
        variables = {name: state[name] for name in ("params", "batch_stats")}
        return to_tensors(variables, OWN_PATHS), OWN_PATHS
    if path.is_file():
        return (_read_pth(path) if _is_of_pytorch(path) else _read_safetensors(path)), table
    if path.suffix in (".pth", ".safetensors") or not _HUB_NAME.fullmatch(pretrained):
        raise UserError(
            f"--config.pretrained={pretrained}: no such file or folder, and not the name of a model on "
            'the Hugging Face hub, such as "timm/resnet50.tv_in1k"'
        )
    return _read_safetensors(_fetch(pretrained)), table


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


def _read_safetensors(path: Path) -> Tensors:
    try:
        return safetensors.numpy.load_file(path)
    except safetensors.SafetensorError as error:
        message = f"{path} is damaged or cut off ({error}): copy it again"
        raise UserError(message) from error


def _read_pth(path: Path) -> Tensors:
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            f"--config.pretrained={path}: reading a .pth needs PyTorch; install it, or convert "
            "the weights to .safetensors"
        )
    import torch  # not a dependency of ours

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)  # executes no pickle
    except Exception as error:
        raise UserError(
            f"{path} is damaged, or holds more than tensors ({type(error).__name__}): convert "
            "the weights to .safetensors"
        ) from error
    if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise UserError(
            f"{path} is not a state_dict, tensors by name, but holds {', '.join(map(str, state))}: "
            "save model.state_dict() alone, best as .safetensors"
        )
    return {name: tensor.numpy() for name, tensor in state.items()}

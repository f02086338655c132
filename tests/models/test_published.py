"""Published weights: their licenses, and names that do not fit the backbone of the config."""

import itertools
import json
import re
from pathlib import Path

import pytest

from fgr_jax.config import Network
from fgr_jax.errors import UserError
from fgr_jax.models.backbones import BACKBONES, HUB, resnet
from fgr_jax.models.backbones.interface import IMAGENET_MEAN, IMAGENET_STD
from fgr_jax.models.weights import published
from fgr_jax.models.weights.pretrained import start_from
from fgr_jax.models.weights.published import PACKAGES, check_is_for, license_of

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", resnet.HUB)
def test_the_resnets_on_the_hub_are_licensed_as_documented(name: str) -> None:
    """Those of the other families are compared in `test_timm_parity.py`."""
    theirs = json.loads((ROOT / "tests" / "goldens" / "resnet.json").read_text())[name]
    for tag, license_of_it in resnet.HUB[name].items():
        assert (tuple(theirs[tag]["mean"]), tuple(theirs[tag]["std"])) == (
            IMAGENET_MEAN,
            IMAGENET_STD,
        )
        assert theirs[tag]["license"] == license_of_it.lower()
    lines = (ROOT / "docs" / "backbones.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    first = next(index for index, row in enumerate(rows) if row and row[0] == f"`{name}`")
    documented: dict[str, str] = {}
    for index in itertools.count(first):
        if not rows[index] or rows[index][0] != (f"`{name}`" if index == first else ""):
            break
        documented |= dict.fromkeys(re.findall(r"`(\w+)`", rows[index][4]), rows[index][5])
    assert documented == resnet.HUB[name]


def test_licenses_of_names() -> None:
    assert HUB.keys() == BACKBONES.keys() - {"resnet"}
    for name, expected in {
        "timm/resnet50.fb_swsl_ig1b_ft_in1k": "CC-BY-NC-4.0",
        "timm/resnet18.fb_ssl_yfcc100m_ft_in1k": "CC-BY-NC-4.0",
        "timm/vit_base_patch14_dinov2.lvd142m": "Apache-2.0",
        "efficientnet-lite2": "Apache-2.0",
        "timm/convnext_tiny.dinov3_lvd1689m": "",
        "timm/resnet50": "",
        "somebody/resnet50.tv_in1k": "",
        "resnet50.tv_in1k": "",
    }.items():
        assert license_of(name) == expected, name


@pytest.mark.parametrize(
    ("name", "backbone"),
    [
        ("efficientnet-lite0", "tf_efficientnet_lite0"),
        ("timm/tf_efficientnet_lite1.in1k", "tf_efficientnet_lite1"),
        ("timm/efficientnet_lite0.ra_in1k", "efficientnet_lite0"),
        ("timm/tf_efficientnet_b0.ns_jft_in1k", "tf_efficientnet_b0"),
        ("timm/resnet50.anything", "resnet50"),
        ("timm/vit_base_patch16_384.augreg_in21k", "vit_base_patch16_224"),  # not listed, may fit
        ("somebody/tf_efficientnet_lite0.in1k", "efficientnet_lite0"),  # means what they like
        ("efficientnet-lite0", "mine.py:efficientnet"),
    ],
)
def test_names_that_may_fit(name: str, backbone: str) -> None:
    check_is_for(name, backbone)


@pytest.mark.parametrize(
    ("name", "backbone", "other"),
    [
        ("efficientnet-lite0", "efficientnet_lite0", "tf_efficientnet_lite0"),
        ("efficientnet-lite0", "resnet50", "tf_efficientnet_lite0"),
        ("timm/tf_efficientnet_lite3.in1k", "efficientnet_lite3", "tf_efficientnet_lite3"),
        ("timm/efficientnet_lite0.ra_in1k", "tf_efficientnet_lite0", "efficientnet_lite0"),
        ("timm/resnet50.tv_in1k", "resnet18", "resnet50"),
    ],
)
def test_weights_of_another_listed_architecture(name: str, backbone: str, other: str) -> None:
    """Those of EfficientNet-Lite would fit by their shapes, and compute with another padding."""
    message = (
        f"--config.pretrained={name} has the weights of {other}, which is not the backbone of the "
        f"config, {backbone}: pass --config.network.backbone={other}, or other weights"
    )
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        check_is_for(name, backbone)


@pytest.mark.parametrize(
    ("name", "section", "message"),
    [
        ("efficientnet-lite0", Network(backbone="efficientnet_lite0"), "efficientnet_lite0: pass"),
        ("timm/resnet50.tv_in1k", Network(backbone="resnet", depth=18), "resnet18: pass"),
        ("timm/resnet50.tv_in1k", Network(backbone="resnet", depth=50), "fetched"),
    ],
)
def test_names_are_checked_before_anything_is_fetched(
    name: str, section: Network, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(_: str) -> Path:
        raise UserError("fetched")

    monkeypatch.setattr(published, "find", find)
    with pytest.raises(UserError, match=message):
        start_from(name, {}, (), section)


def test_weights_for_a_padding_that_is_not_listed() -> None:
    message = (
        r"^--config.pretrained=timm/efficientnet_b0.ra_in1k was trained with PyTorch's padding, and "
        r"tf_efficientnet_b0 pads .*, such as timm/tf_efficientnet_b0.aa_in1k$"
    )
    with pytest.raises(UserError, match=message):
        check_is_for("timm/efficientnet_b0.ra_in1k", "tf_efficientnet_b0")


@pytest.mark.parametrize("name", PACKAGES)
def test_what_is_in_the_packages_is_on_the_hub(name: str) -> None:
    assert license_of(name) == license_of(PACKAGES[name][1])

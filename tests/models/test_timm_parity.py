"""Our backbones against timm's numbers (see `goldens/make_timm.py`), in float64."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity
import pytest
from goldens import recipe
from goldens.families import FAMILIES, digest
from networks import shapes_of
from parity import goldens_of

from fgr_jax import config as config_lib
from fgr_jax import cross_entropy
from fgr_jax.models.backbones import BACKBONES, convnext, efficientnet, vit
from fgr_jax.models.backbones.convnext import ConvNeXt
from fgr_jax.models.backbones.efficientnet import EfficientNet
from fgr_jax.models.backbones.interface import IMAGENET_MEAN, IMAGENET_STD, Backbone
from fgr_jax.models.backbones.vit import ViT
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network, parameter_count
from fgr_jax.models.weights.table import Tensors, to_tensors
from fgr_jax.train.optimizer import momentum_sgd

ROOT = Path(__file__).parent.parent.parent
CLASSES = 10
STEPS = 10

NARROW_VIT = functools.partial(ViT, patch_size=8, depth=5, heads=4, channels=32)
# The members of `FAMILIES` with few channels, as `make_timm.py` makes them.
SMALL: Mapping[str, Callable[..., Backbone]] = {
    "convnext/narrow": functools.partial(ConvNeXt, depths=(1, 1, 2, 1), channels=(8, 12, 16, 24)),
    **{
        f"efficientnet/narrow_{name}": functools.partial(
            EfficientNet, width=0.25, depth=0.3, is_lite=is_lite, is_of_tensorflow=is_of_tensorflow
        )
        for name, is_lite, is_of_tensorflow in (
            ("tf_b", False, True),
            ("tf_lite", True, True),
            ("lite", True, False),
        )
    },
    "vit/class_token": NARROW_VIT,
    "vit/registers": functools.partial(NARROW_VIT, layer_scale=True, registers=4),
}
LISTED = {"convnext": convnext, "efficientnet": efficientnet, "vit": vit}

MEMBERS = [
    (family, member, size)
    for family, each in FAMILIES.items()
    for member, size in (
        *((member, size) for member in each.small for size in each.sizes),
        *each.full.items(),
    )
]


@functools.cache
def architectures_of(family: str) -> dict[str, dict[str, Any]]:
    return json.loads((parity.GOLDENS / f"{family}.json").read_text())


def network_of(family: str, member: str) -> Network:
    """A small or a listed member, in float64."""
    if member in LISTED[family].ARCHITECTURES:
        backbone: Any = BACKBONES[member](config_lib.Network(backbone=member))
        backbone = backbone.clone(dtype=np.float64, param_dtype=np.float64)
    else:
        backbone = SMALL[f"{family}/{member}"](dtype=np.float64, param_dtype=np.float64)
    return Network(backbone, CamHead(CLASSES, dtype=np.float64, param_dtype=np.float64))


@pytest.mark.parametrize(("family", "member", "size"), MEMBERS)
def test_every_stage_the_features_and_the_scores(
    family: str, member: str, size: tuple[int, int]
) -> None:
    goldens = goldens_of(family)
    network = network_of(family, member)
    with jax.enable_x64(True):
        outputs, state = jax.jit(
            lambda v, x: network.apply(v, x, train=False, mutable=["intermediates"])
        )(parity.variables_of(network, *size, dtype=np.float64), recipe.images(2, *size))
    key = f"forward/{member}/{size[0]}x{size[1]}"
    stages = state["intermediates"]["backbone"]
    compared = [name for name in network.backbone.stages if f"{key}/stage/{name}" in goldens]
    # timm has no counterpart of ConvNeXt's normalization before pooling; the features show it.
    assert {*stages} - {*compared} <= {"last_norm"}
    differences = {}
    for name in compared:
        leaves = [np.asarray(leaf).ravel() for leaf in jax.tree.leaves(stages[name][0])]
        golden = goldens[f"{key}/stage/{name}"]
        differences[name] = recipe.relative_difference(np.concatenate(leaves), golden)
    features = np.asarray(outputs.features)
    differences["features"] = recipe.relative_difference(features, goldens[f"{key}/features"])
    theirs = goldens[f"{key}/scores"]
    scores = np.asarray(outputs.scores)
    differences["scores"] = float(np.linalg.norm(scores - theirs) / np.linalg.norm(theirs))
    print(key, *(f"{name} {difference:.1e}" for name, difference in differences.items()))
    assert max(differences.values()) < 1e-9


class Training(NamedTuple):
    """The first member of a family, trained; tensors have timm's names.

    Attributes:
      before: all tensors.
      loss: at the first step.
      gradients: likewise, with the running statistics after it.
      after: the parameters after `STEPS` steps.
    """

    before: Tensors
    loss: float
    gradients: Tensors
    after: Tensors


@functools.cache
def training_of(family: str) -> Training:
    """Takes the steps of `make_timm.py`; the first one is also that of its `training_step`."""
    each = FAMILIES[family]
    network, side = network_of(family, each.small[0]), each.train_size
    with jax.enable_x64(True):
        variables = parity.variables_of(network, side, dtype=np.float64)
        optimizer = momentum_sgd(lambda _: 0.05, momentum=0.9, weight_decay=1e-2)

        @jax.jit
        def step(variables: Any, state: Any, images: Any, labels: Any) -> Any:
            def objective(params: Any) -> Any:
                outputs, updates = network.apply(
                    variables | {"params": params}, images, train=True, mutable=["batch_stats"]
                )
                return cross_entropy(outputs.scores, labels).mean(), updates

            params = variables["params"]
            (loss, updates), gradients = jax.value_and_grad(objective, has_aux=True)(params)
            changes, state = optimizer.update(gradients, state, params)
            params = optax.apply_updates(params, changes)
            return updates | {"params": params}, state, loss, updates | {"params": gradients}

        before, state, first = variables, jax.jit(optimizer.init)(variables["params"]), None
        for index in range(STEPS):
            images = recipe.images(4, side, side, seed=index)
            labels = jnp.asarray(recipe.labels(4, CLASSES, seed=index))
            variables, state, *computed = step(variables, state, images, labels)
            first = first or computed
    assert first is not None
    after = {"params": variables["params"]}
    trees = (before, first[1], after)
    tensors = [to_tensors(jax.tree.map(np.asarray, tree), network.table) for tree in trees]
    return Training(tensors[0], float(first[0]), *tensors[1:])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_gradients_of_all_parameters(family: str) -> None:
    goldens, training = goldens_of(family), training_of(family)
    np.testing.assert_allclose(training.loss, goldens["step/loss"], rtol=1e-9)
    tensors = {name: t for name, t in training.gradients.items() if not name.endswith("tracked")}
    gradients, statistics = parity.differences(goldens, "step", tensors, training.before)
    print(f"{family}: worst gradient {max(gradients.values()):.1e}")
    assert max(gradients.values()) < 1e-8
    assert max(statistics.values(), default=0) < 1e-8


@pytest.mark.parametrize("family", FAMILIES)
def test_ten_steps_of_sgd(family: str) -> None:
    goldens, tensors = goldens_of(family), training_of(family).after
    differences = {
        name: recipe.relative_difference(tensor, goldens[f"ten/{name}"])
        for name, tensor in tensors.items()
    }
    print(f"{family}: worst parameter after ten steps {max(differences.values()):.1e}")
    assert max(differences.values()) < 1e-8
    assert len(differences) == sum(name.startswith("ten/") for name in goldens)


ARCHITECTURES = [(family, name) for family in LISTED for name in LISTED[family].ARCHITECTURES]


@pytest.mark.parametrize(("family", "name"), ARCHITECTURES)
def test_names_shapes_and_number_of_parameters_are_timms(family: str, name: str) -> None:
    """A strict `load_state_dict` of timm takes our files, and we take the files of timm."""
    theirs = architectures_of(family)[name]
    network = Network(BACKBONES[name](config_lib.Network(backbone=name)), CamHead(1000))
    shapes = shapes_of(network, 224, 224)
    like = jax.tree.map(lambda leaf: np.broadcast_to(np.False_, leaf.shape), shapes)
    assert parameter_count(like["params"]) == theirs["parameters"]
    tensors = {name: list(t.shape) for name, t in to_tensors(like, network.table).items()}
    assert digest(tensors) == theirs["digest"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_listed_architecture_is_compared(family: str) -> None:
    assert list(LISTED[family].ARCHITECTURES) == list(architectures_of(family))
    assert LISTED[family].HUB.keys() == LISTED[family].ARCHITECTURES.keys()


@pytest.mark.parametrize(("family", "name"), ARCHITECTURES)
def test_the_weights_on_the_hub_take_these_images_and_are_documented(
    family: str, name: str
) -> None:
    """Their mean and deviation are the backbone's; the table has them, and everything else right."""
    backbone: Any = BACKBONES[name](config_lib.Network(backbone=name))
    theirs = architectures_of(family)[name]
    lines = (ROOT / "docs" / "backbones.md").read_text().splitlines()
    (row,) = [line.split("|")[1:-1] for line in lines if line.startswith(f"| `{name}` |")]
    _, parameters, stride, mean_and_std, tags, license_of_all = (cell.strip() for cell in row)
    assert parameters == f"{theirs['parameters']:,}"
    assert stride == str(backbone.stride)
    values = {"ImageNet": (IMAGENET_MEAN, IMAGENET_STD), "0.5": ((0.5,) * 3, (0.5,) * 3)}
    assert values[mean_and_std] == (backbone.mean, backbone.std)
    assert tags == ", ".join(f"`{tag}`" for tag in LISTED[family].HUB[name])
    for tag in LISTED[family].HUB[name]:
        timms = theirs["hub"][tag]
        assert (tuple(timms["mean"]), tuple(timms["std"])) == (backbone.mean, backbone.std)
        assert timms["license"] == LISTED[family].HUB[name][tag].lower()
        assert LISTED[family].HUB[name][tag] == license_of_all

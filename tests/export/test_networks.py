"""Networks as ONNX files: onnxruntime computes the outputs of the forward pass."""

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import pytest
from networks import shapes_of
from onnx_files import checked_onnx, folds_nothing_more, operators, optimized, run_onnx
from onnx_in_browser import onnxruntime_web
from pooled_head import POOLED_HEAD
from saved_runs import saved
from small_backbone import SMALL_BACKBONE, Patches
from small_backbones import STAGED_BACKBONE
from tiny_run import QUIET, tiny_config

from fgr_jax.config import Config
from fgr_jax.data.source import open_splits
from fgr_jax.distributed import data_mesh
from fgr_jax.export.exported_run import ExportedRun, metadata, outputs_of
from fgr_jax.export.formats import FORMATS
from fgr_jax.export.verification import verify_outputs
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.models.backbones import BACKBONES
from fgr_jax.models.backbones.convnext import ConvNeXt
from fgr_jax.models.backbones.efficientnet import EfficientNet
from fgr_jax.models.backbones.resnet import ResNet
from fgr_jax.models.backbones.vit import ViT
from fgr_jax.models.heads import HEADS
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.heads.gaussian import GaussianHead
from fgr_jax.models.network import Network, build_network, forward
from fgr_jax.runs.workdir import Workdir

CLASSES = 5
WITH_MAPS = ("cam", "gaussian")  # of the listed heads
_VIT: dict[str, Any] = {"patch_size": 8, "depth": 4, "heads": 2, "channels": 16}
_EFFICIENTNET: dict[str, Any] = {"width": 0.1, "depth": 0.1}
BACKBONE_FORMS: dict[str, Any] = {
    "resnet, basic": ResNet(depth=18, width=1 / 16),
    "resnet, bottleneck": ResNet(depth=50, width=1 / 16, last_stride=1),
    "resnet, groups": ResNet(depth=18, width=1 / 16, norm_group=4),
    "convnext": ConvNeXt(depths=(1, 1, 1, 1), channels=(8, 12, 16, 24)),
    "efficientnet_lite": EfficientNet(**_EFFICIENTNET, is_lite=True, is_of_tensorflow=False),
    "tf_efficientnet_lite": EfficientNet(**_EFFICIENTNET, is_lite=True, is_of_tensorflow=True),
    "tf_efficientnet_b": EfficientNet(**_EFFICIENTNET, is_lite=False, is_of_tensorflow=True),
    "vit": ViT(**_VIT),
    "vit, registers": ViT(**_VIT, layer_scale=True, registers=4),
}


def own(head: str = "cam", backbone: str = SMALL_BACKBONE) -> Network:
    """A network of a file of the user's own, as a config names it."""
    config = Config()
    config.network.backbone, config.network.head = backbone, head
    return build_network(config, CLASSES)


NETWORKS: dict[str, Network] = {
    **{name: Network(form, CamHead(CLASSES)) for name, form in BACKBONE_FORMS.items()},
    "own backbone": own(),
    "own head": own(POOLED_HEAD),
    "gaussian head": Network(Patches(), GaussianHead(CLASSES)),
    **{
        f"head {name}": own(name, STAGED_BACKBONE if name == "dfl_cnn" else SMALL_BACKBONE)
        for name in HEADS
        if name not in (*WITH_MAPS, "nts")
    },
    "pool": Network(Patches(), CamHead(CLASSES), pool=2),
}
# The sides of images; 72 is no multiple of most strides.
SIZES = (64, 72)
TWICE = ("resnet, basic", "convnext", "tf_efficientnet_lite", "vit", "own backbone")


@functools.cache
def variables_of(name: str, size: int) -> Any:
    """Variables with no value at its initial one, whose maps are of the size of 1."""
    network = NETWORKS[name]
    generator = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> Any:
        key = path[-1].key
        if key == "kernel":
            gain = 1.5 if name == "tf_efficientnet_b" else 1  # its activations shrink
            # Of vectors whose norm is 1.
            if path[-2].key == "linear" and name not in ("head dfl_cnn", "head tasn"):
                gain = 10
            deviation = gain / np.sqrt(np.prod(leaf.shape[:-1]))
            return generator.normal(0, deviation, leaf.shape).astype(np.float32)
        if key in ("scale", "var") or "gamma" in key:
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        return generator.normal(0, 0.3, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes_of(network, size, size))


def outputs(name: str, variables: Any, images: Any) -> Any:
    return outputs_of(forward(NETWORKS[name], variables, images))


@functools.cache
def model_of(name: str, size: int) -> Any:
    function = functools.partial(outputs, name, variables_of(name, size))
    return checked_onnx(function, (size, size, 3), np.uint8)


def test_every_family_of_backbones_is_tested() -> None:
    families = {type(build(Config().network)) for build in BACKBONES.values()}
    assert families <= {type(form) for form in BACKBONE_FORMS.values()}


@pytest.fixture(scope="module")
def in_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """onnxruntime-web in Chromium."""
    with onnxruntime_web(tmp_path_factory.mktemp("browser")) as run:
        yield run


@pytest.mark.parametrize(
    ("name", "size"),
    [
        (name, size)
        for name, size in itertools.product(NETWORKS, SIZES)
        if size == SIZES[0] or name in TWICE
    ],
)
def test_a_network_of_one_and_of_seven_images(name: str, size: int, in_browser: Any) -> None:
    """In onnxruntime and in the browser."""
    model = model_of(name, size)
    images = np.random.default_rng(1).integers(0, 256, (7, size, size, 3), np.uint8)
    compute = jax.jit(functools.partial(outputs, name))
    expected = jax.device_get(compute(variables_of(name, size), images))
    assert ("maps" in expected) != ("head" in name and name != "gaussian head")
    of_rows = (slice(0, 7), slice(3, 4))
    batches = [images[rows] for rows in of_rows]
    of_python = [run_onnx(model, batch) for batch in batches]
    for all_found in (of_python, in_browser(model, batches)):
        for rows, found in zip(of_rows, all_found, strict=True):
            assert found.keys() == expected.keys()
            for key, values in expected.items():
                assert found[key].shape == values[rows].shape
                largest = max(1, np.abs(values).max())
                np.testing.assert_allclose(found[key], values[rows], atol=1e-5 * largest, rtol=0)
    # Predictions that differ, so that a file that ignores its input would be noticed.
    assert np.ptp(expected["probabilities"], axis=0).max() > 1e-3


def test_all_predictions_on_a_split_are_those_of_the_run(
    data_dir: Path, tmp_path: Path, in_browser: Any
) -> None:
    workdir = saved(tiny_config(data_dir), tmp_path / "run")
    run = open_run(Workdir.open(workdir))
    exported = ExportedRun(run, restore(run, None, data_mesh()))
    FORMATS["onnx"].write(exported, metadata(exported), tmp_path / "a.onnx")
    model = onnx.load(tmp_path / "a.onnx")
    _, source = open_splits(run.config.data, QUIET)
    verdict = verify_outputs(
        exported, source, data_mesh(), lambda images: in_browser(model, [images])[0], QUIET
    )
    assert f"all predictions are those of the run on {len(source)} images" in verdict


@pytest.mark.parametrize("name", NETWORKS)
def test_normalization_is_part_of_other_operators(name: str) -> None:
    model = model_of(name, SIZES[0])
    written = operators(model)
    assert "BatchNormalization" not in written
    assert folds_nothing_more(model)
    # Those of the pixels, of GELU, of squeeze and excitation, and of ConvNeXt's last LayerNorm.
    kind = name.split(",")[0]
    multiplied = {
        "convnext": 1 + 2 * 4 + 3,
        "tf_efficientnet_b": written.count("Mul"),
        "vit": 1 + 4 * 2 + 4,
    }
    if not name.startswith("head "):  # which multiply on their own
        assert written.count("Mul") == multiplied.get(kind, 1)
    assert written.count("LayerNormalization") == {"convnext": 8, "vit": 9}.get(kind, 0)
    assert written.count("Erf") == {"convnext": 4, "vit": 4}.get(kind, 0)
    more = {"vit": 4, "head deep_ten": 1, "head dep": 1, "head tasn": 2}
    assert written.count("Softmax") == 1 + more.get(kind, 0)


@pytest.mark.parametrize("name", ["convnext", "vit, registers"])
def test_onnxruntime_recognizes_gelu(name: str, tmp_path: Path) -> None:
    written = operators(optimized(model_of(name, SIZES[0]), tmp_path / "optimized.onnx"))
    assert written.count("Gelu") == 4
    assert "Erf" not in written


@pytest.mark.parametrize("name", ["efficientnet_lite", "tf_efficientnet_b", "convnext"])
def test_a_depthwise_convolution_is_one_operator(name: str) -> None:
    """The form that is fastest here, a sum of shifted images, is not written."""
    model = model_of(name, SIZES[0])
    groups = [
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "group" and attribute.i > 1
    ]
    assert len(groups) == {"convnext": 4}.get(name, 7)
    assert "Pad" not in operators(model)


def test_the_input_and_the_outputs_are_named_and_the_batch_is_free() -> None:
    model = model_of("resnet, basic", SIZES[0])
    (image,) = model.graph.input
    found = {
        each.name: [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim]
        for each in (image, *model.graph.output)
    }
    assert found == {
        "x": ["batch", 64, 64, 3],
        "probabilities": ["batch", CLASSES],
        "maps": ["batch", 2, 2, CLASSES],
    }
    assert [opset.version for opset in model.opset_import] == [17]
    assert {opset.domain for opset in model.opset_import} == {""}

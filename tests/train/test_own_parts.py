"""A backbone, a head and an objective from files outside the package, on the command line and back."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from networks import by_path
from tiny_run import QUIET, ROOT, command, tiny_config

from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.evaluate import __main__ as evaluate
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.losses.interface import Outputs, Targets
from fgr_jax.models.network import build_network
from fgr_jax.predict import __main__ as predict
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

BACKBONE = '''
import flax.linen as nn


class Patches(nn.Module):
    """A ViT's first layer, twice."""

    width: int
    stride: int = 8

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Conv(self.width, (4, 4), 4)(images))
        return nn.relu(nn.Conv(self.width, (2, 2), 2)(x))


def patches(network):
    return Patches(round(64 * network.width))
'''

NNX_BACKBONE = """
import flax.linen as nn
from flax import nnx


class NnxPatches(nnx.Module):
    def __init__(self, channels, *, rngs):
        self.first = nnx.Conv(3, channels, (4, 4), strides=4, rngs=rngs)
        self.norm = nnx.BatchNorm(channels, rngs=rngs)
        self.second = nnx.Conv(channels, channels, (2, 2), strides=2, rngs=rngs)

    def __call__(self, images, *, train):
        x = nnx.relu(self.norm(self.first(images), use_running_average=not train))
        return nnx.relu(self.second(x))


class Patches(nn.Module):
    channels: int
    stride: int = 8

    @nn.compact
    def __call__(self, images, *, train):
        return nnx.bridge.to_linen(NnxPatches, self.channels, name="patches")(images, train=train)


def patches(network):
    return Patches(round(64 * network.width))
"""

HEAD = '''
import flax.linen as nn
import jax.numpy as jnp

from fgr_jax.losses.interface import Outputs


class MaxPooled(nn.Module):
    """Scores of the largest features: no maps, and so no block."""

    num_classes: int

    @nn.compact
    def __call__(self, features, *, train):
        pooled = jnp.max(features, axis=(1, 2))
        return Outputs(nn.Dense(self.num_classes)(pooled), pooled)


def max_pooled(network, num_classes):
    return MaxPooled(num_classes)
'''

OBJECTIVE = """
import jax.numpy as jnp

from fgr_jax.losses import cross_entropy
from fgr_jax.losses.interface import Objective


def focal(loss):
    def losses(outputs, targets, extra):
        log_p = -cross_entropy(outputs.scores, targets.labels)
        return -((1 - jnp.exp(log_p)) ** 2) * log_p

    return Objective(losses)
"""


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, str]:
    """Values of the config fields that name the parts."""
    for name, code in (
        ("backbone", BACKBONE),
        ("nnx_backbone", NNX_BACKBONE),
        ("head", HEAD),
        ("objective", OBJECTIVE),
    ):
        (tmp_path / f"my_{name}.py").write_text(code)
    return {
        "backbone": f"{tmp_path}/my_backbone.py:patches",
        "nnx_backbone": f"{tmp_path}/my_nnx_backbone.py:patches",
        "head": f"{tmp_path}/my_head.py:max_pooled",
        "objective": f"{tmp_path}/my_objective.py:focal",
    }


@pytest.mark.parametrize("kind", ["backbone", "nnx_backbone"])
def test_a_run_with_a_backbone_and_an_objective_of_ones_own(
    kind: str, data_dir: Path, parts: dict[str, str], tmp_path: Path
) -> None:
    """It trains by the command, learns, is resumed, evaluated, and predicts with heat maps."""
    config = tiny_config(data_dir)
    config.network.backbone, config.loss.objective = parts[kind], parts["objective"]
    config.runtime.devices = 1
    workdir, resumed = tmp_path / "run", tmp_path / "resumed"
    if kind == "backbone":
        done = subprocess.run(
            command(config, workdir),
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "8"},  # as here, for the same bits
        )
        assert done.returncode == 0, done.stderr
        assert f"network   {parts[kind]}, " in done.stdout
        assert "maps of 4×4 cells" in done.stdout
    else:
        train(config, Workdir.open(workdir), QUIET)
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["split"] == "train"]
    assert losses[-1] < losses[0]
    # Where nothing is told apart, the focal loss is (3/4)² ln 4 = 0.78, and cross-entropy ln 4 = 1.39.
    assert losses[0] < 1

    step = records[-1]["step"]
    shutil.copytree(workdir, resumed)
    shutil.rmtree(resumed / "checkpoints" / str(step))
    assert 0 < train(config, Workdir.open(resumed), QUIET).first_step < step
    for name in ("metrics.jsonl", "fingerprints.jsonl"):
        assert (resumed / name).read_bytes() == (workdir / name).read_bytes()
    trained, again = (
        restore(open_run(Workdir.open(run)), None, data_mesh()) for run in (workdir, resumed)
    )
    state, other = by_path(trained.variables), by_path(again.variables)
    assert state.keys() == other.keys()
    assert all(other[path].tobytes() == value.tobytes() for path, value in state.items())
    assert trained.network.stride == 8
    modules = set(trained.variables["params"]["backbone"])
    assert modules == ({"Conv_0", "Conv_1"} if kind == "backbone" else {"patches"})
    statistics = [value for path, value in state.items() if "batch_stats" in path]
    assert len(statistics) == (0 if kind == "backbone" else 2)
    assert all((value != np.round(value)).any() for value in statistics)  # not as initialized

    assert evaluate.main(["evaluate", f"--workdir={resumed}"]) == 0
    results = json.loads((resumed / f"evaluation/step-{step}-one/results.json").read_text())
    assert results["center_crop"]["top1"] == pytest.approx(records[-1]["top1"])
    image, heatmaps = tmp_path / "image.png", tmp_path / "heatmaps"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    assert cv2.imwrite(str(image), pixels)
    arguments = [f"--output={tmp_path}/predictions.csv", f"--heatmaps={heatmaps}", str(image)]
    assert predict.main(["predict", f"--workdir={resumed}", *arguments]) == 0
    assert str(image) in (tmp_path / "predictions.csv").read_text()
    assert len(list(heatmaps.glob("image.png.[1-4]-place ?.jpg"))) == 4


def test_a_head_without_maps_has_no_block(
    data_dir: Path, parts: dict[str, str], tmp_path: Path
) -> None:
    config = tiny_config(data_dir)
    config.duration = "8 steps"
    config.network.backbone, config.network.head = parts["backbone"], parts["head"]
    workdir = Workdir.open(tmp_path / "run")
    assert train(config, workdir, QUIET).step == 8
    lines = (tmp_path / "run" / "fingerprints.jsonl").read_text().splitlines()
    assert {json.loads(line)["masks"] for line in lines} == {"0" * 16}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "network.backbone",
            "renset",
            r"'renset': is none of resnet, .*resnet18, .*\d+ others, and not the form of one of yo",
        ),
        (
            "network.head",
            "bilinear",
            r"'bilinear': is none of .*cam, .*[0-9] others, and not the form of",
        ),
        ("network.backbone", "nowhere.py:net", "nowhere.py: no such file"),
        (
            "network.backbone",
            "{objective}",
            "must return a flax.linen.module.Module, not Objective",
        ),
        ("network.head", "{backbone}", r"does not work: TypeError: patches\(\) takes 1 positional"),
    ],
)
def test_what_is_no_part_is_named(
    data_dir: Path, parts: dict[str, str], field: str, value: str, message: str
) -> None:
    config = tiny_config(data_dir)
    setattr(config.network, field.partition(".")[2], value.format(**parts))
    with pytest.raises(UserError, match=f"--config.{field}=.*{message}"):
        build_network(config, 3)


def test_the_interface_is_what_the_documentation_shows() -> None:
    assert Outputs._fields == ("scores", "features", "maps", "offset", "class_weights", "branches")
    assert Targets._fields == ("labels", "mask", "step")

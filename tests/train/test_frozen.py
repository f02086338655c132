"""Networks of which a part is frozen: up to a stage, or the whole backbone."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import by_path, cam_network, random_variables
from tiny_run import QUIET, tiny_config
from tiny_step import batch_of, build

from fgr_jax.config import Config
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.losses import cross_entropy
from fgr_jax.models.network import (
    Network,
    build_network,
    frozen_output,
    trained_part,
    with_trained_part,
)
from fgr_jax.runs import checkpoints
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

PATCHES = '''
import flax.linen as nn


class Patches(nn.Module):
    """Two layers with running statistics, and no stages."""

    stride: int = 8

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.BatchNorm(not train)(nn.Conv(8, (4, 4), 4)(images)))
        return nn.relu(nn.Conv(16, (2, 2), 2)(x))


def patches(network):
    return Patches()
'''


def frozen_network(frozen: str, **numbers: Any) -> Network:
    network = cam_network(5, depth=18, width=1 / 16, **numbers)
    stage = "" if frozen == "backbone" else frozen
    return Network(network.backbone.clone(frozen=stage), network.classifier, frozen)


def is_trained(path: str, frozen: str) -> bool:
    """Whether a variable of a ResNet is trained, by its name alone."""
    if "classifier" in path or not frozen:
        return True
    if frozen == "backbone":
        return False
    order = ["stem", "layer1", "layer2", "layer3", "layer4"]
    stage = next((name for name in order if name in path), "stem")
    return order.index(stage) > order.index(frozen)


@pytest.mark.parametrize("frozen", ["stem", "backbone"])
def test_what_is_frozen_keeps_its_bits_and_has_no_optimizer_state(
    tiny: Config, frozen: str
) -> None:
    tiny.network.frozen = frozen
    steps, state = build(tiny)
    before = by_path(state.variables)
    for seed in range(3):
        state, _ = steps.train(state, batch_of(8, seed=seed))
    after = by_path(state.variables)
    assert before.keys() == after.keys()
    for path in before:
        changed = before[path].tobytes() != after[path].tobytes()
        assert changed == is_trained(path, frozen), path
    velocities = [path for path in by_path(state.opt_state) if "trace" in path]
    names = {path.partition("trace")[2] for path in velocities}
    wanted = {path for path in by_path(state.params) if is_trained(path, frozen)}
    assert names == wanted
    assert any("layer1" in path for path in wanted) == (frozen == "stem")


FLOAT64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}


@functools.cache
def float64_variables() -> Any:
    variables = random_variables(frozen_network("", **FLOAT64), 32, 32)
    return jax.tree.map(
        lambda leaf: leaf + 0.01 * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), variables
    )


@functools.cache
def gradient_of(frozen: str, *, of_all: bool) -> dict[str, np.ndarray]:
    """The gradient of the trained part of a network, or of all its parameters, by path."""
    network, variables = frozen_network(frozen, **FLOAT64), float64_variables()
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3), jnp.float64)

    @jax.jit
    @jax.grad
    def gradient(part: Any) -> jax.Array:
        params = with_trained_part(variables["params"], part)
        outputs: Any = network.apply(variables | {"params": params}, images, train=False)
        return jnp.mean(cross_entropy(outputs.scores, jnp.arange(4)))

    params = variables["params"]
    return by_path(gradient(params if of_all else trained_part(network, params, 32)))


@pytest.mark.parametrize("frozen", ["layer3", "backbone"])
def test_gradients_of_the_rest_are_those_of_the_whole_network(frozen: str) -> None:
    """In float64, where BatchNorm uses its running statistics everywhere."""
    with jax.enable_x64(True):
        network = frozen_network(frozen, **FLOAT64)
        variables = random_variables(network, 32, 32)
        assert by_path(variables).keys() == by_path(float64_variables()).keys()
        ours, theirs = gradient_of(frozen, of_all=False), gradient_of("", of_all=True)
        assert ours.keys() == {path for path in theirs if is_trained(path, frozen)}
        for path, gradient in ours.items():
            assert gradient.any(), path
            np.testing.assert_allclose(gradient, theirs[path], rtol=1e-11, atol=1e-14)
        # Whoever differentiates all parameters gets zeros for the frozen ones.
        everything = gradient_of(frozen, of_all=True)
        assert all(leaf.any() == is_trained(path, frozen) for path, leaf in everything.items())


@pytest.mark.parametrize(
    ("frozen", "train"),
    [("stem", False), ("layer3", True), ("layer4", False), ("backbone", True)],
)
def test_the_network_continues_after_its_frozen_part(frozen: str, train: bool) -> None:
    network = frozen_network(frozen)
    images = jax.random.bits(jax.random.key(0), (4, 32, 32, 3), jnp.uint8)
    variables = random_variables(network, 32, 32)
    output = frozen_output(network, variables, images)
    collected: Any = ["batch_stats"]
    (rest, updated), (whole, expected) = (
        jax.jit(
            lambda x, start=start: network.apply(
                variables, x, train=train, start=start, mutable=collected
            )
        )(x)
        for x, start in ((output, frozen), (network.normalize(images), ""))
    )
    for one, other in zip(by_path(rest).items(), by_path(whole).items(), strict=True):
        assert one[0] == other[0]
        np.testing.assert_allclose(one[1], other[1], rtol=1e-3, atol=1e-4)
    # Statistics of the frozen part are there, unchanged, whether it is computed or not.
    assert by_path(updated).keys() == by_path(expected).keys()
    for path, value in by_path(variables["batch_stats"]).items():
        for found in (updated, expected):
            same = by_path(found["batch_stats"])[path].tobytes() == value.tobytes()
            assert same == (not train or not is_trained(path, frozen)), path


def test_a_backbone_of_ones_own_is_frozen_whole(tiny: Config, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PATCHES)
    tiny.network.backbone, tiny.network.frozen = f"{tmp_path}/mine.py:patches", "backbone"
    tiny.diversification.patch_size = 1
    steps, state = build(tiny)
    before = by_path(state.variables)
    assert any("batch_stats" in path for path in before)
    for seed in range(2):
        state, _ = steps.train(state, batch_of(8, seed=seed))
    for path, value in by_path(state.variables).items():
        assert (value.tobytes() != before[path].tobytes()) == ("classifier" in path), path
    assert not any("backbone" in path for path in by_path(state.opt_state))


@pytest.mark.parametrize(
    ("backbone", "frozen", "message"),
    [
        (
            "resnet",
            "layer5",
            "'layer5': is no stage of ResNet-18 × 0.125: must be backbone or one of stem, layer1, "
            "layer2, layer3, layer4, or empty",
        ),
        ("own", "layer3", "'layer3': is no stage of .*:patches: must be backbone, or empty"),
    ],
)
def test_an_unknown_stage_is_named(
    tiny: Config, tmp_path: Path, backbone: str, frozen: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(PATCHES)
    own = f"{tmp_path}/mine.py:patches"
    tiny.network.backbone = own if backbone == "own" else backbone
    tiny.network.frozen = frozen
    with pytest.raises(UserError, match=f"--config.network.frozen={message}"):
        build_network(tiny, 5)


def test_a_run_is_resumed_and_opened(data_dir: Path, tmp_path: Path) -> None:
    """The optimizer state is restored with its fewer entries, and the network with all of its own."""
    config = tiny_config(data_dir)
    config.network.frozen = "stem"
    config.duration, config.evaluate_every, config.checkpoint_every = (
        "9 steps",
        "9 steps",
        "5 steps",
    )
    whole, folder = tmp_path / "whole", tmp_path / "resumed"
    train(config, Workdir.open(whole), QUIET)
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints" / "9")
    outcome = train(config, Workdir.open(folder), QUIET)
    assert (outcome.first_step, outcome.step) == (5, 9)
    for name in ("metrics.jsonl", "fingerprints.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    state, again = (
        by_path(checkpoints.read(Workdir.open(run).checkpoints, 9)) for run in (whole, folder)
    )
    assert again.keys() == state.keys()
    assert all(again[path].tobytes() == state[path].tobytes() for path in state)
    trained = restore(open_run(Workdir.open(folder)), None, data_mesh())
    assert "conv1" in trained.variables["params"]["backbone"]
    # Without the field, as in a config of an older version, nothing is frozen.
    recorded = json.loads((folder / "config.json").read_text())
    assert recorded.pop("network.frozen") == "stem"
    (folder / "config.json").write_text(json.dumps(recorded))
    assert open_run(Workdir.open(folder)).config.network.frozen == ""


class _Dropping(nn.Module):
    stride: int = 32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        assert not train
        return nn.Conv(4, (32, 32), 32)(images)


def test_a_frozen_backbone_is_in_test_mode() -> None:
    network = Network(_Dropping(), frozen_network("").classifier, "backbone")
    images = jnp.zeros((2, 32, 32, 3))
    variables = network.init(jax.random.key(0), images, train=True)
    network.apply(variables, images, train=True)

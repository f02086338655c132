"""Weights in and out: torchvision's layout, files, other runs, and what can be wrong with them."""

import hashlib
import json
import os
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from etils import epath
from networks import cam_network, shapes_of
from several_processes import run_in_processes

from fgr_jax import config as config_lib
from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.models.backbones.resnet import ResNet
from fgr_jax.models.weights.pretrained import Start, start_from
from fgr_jax.models.weights.table import OWN_PATHS, Tensors, from_tensors, to_tensors
from fgr_jax.runs import checkpoints
from fgr_jax.runs.workdir import PROVENANCE


def random_variables(depth: int = 18, classes: int = 5, width: float = 0.125, seed: int = 0) -> Any:
    """Variables with no value at its initial one, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        resnet_shapes(depth, classes, width),
    )


def resnet_shapes(depth: int, classes: int, width: float) -> Any:
    network = cam_network(classes, depth=depth, width=width)
    return shapes_of(network, 32, 32)


def named(variables: Any) -> Tensors:
    """Tensors with torchvision's names."""
    return to_tensors(variables, ResNet.table)


def placed(tensors: Tensors, like: Any, where: str) -> Any:
    return from_tensors(tensors, like, ResNet.table, where)


def started_from(pretrained: str, like: Any, depth: int = 18) -> Start:
    section = config_lib.Network(backbone="resnet", depth=depth)
    return start_from(pretrained, like, ResNet.table, section)


def assert_equal(ours: Any, theirs: Any) -> None:
    one = flax.traverse_util.flatten_dict(ours, sep="/")
    two = flax.traverse_util.flatten_dict(theirs, sep="/")
    assert one.keys() == two.keys()
    for path in one:
        assert np.asarray(one[path]).tobytes() == np.asarray(two[path]).tobytes(), path


@pytest.fixture(scope="module")
def torchvision_names() -> dict[str, dict[str, list[int]]]:
    """Names and shapes that torchvision itself gives, from `tests/goldens/make_goldens.py`."""
    path = Path(__file__).parent.parent / "goldens" / "state_dicts.json"
    return json.loads(path.read_text())


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_names_and_shapes_are_torchvisions(
    depth: int, torchvision_names: dict[str, dict[str, list[int]]]
) -> None:
    like = resnet_shapes(depth, 1000, 1.0)
    tensors = named(jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.bool_), like))
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == torchvision_names[f"resnet{depth}"]


@pytest.mark.parametrize("depth", [18, 50])
def test_the_round_trip_is_exact_to_the_bit(depth: int, tmp_path: Path) -> None:
    variables = random_variables(depth)
    safetensors.numpy.save_file(named(variables), tmp_path / "w.safetensors")
    again, line, *_ = started_from(
        str(tmp_path / "w.safetensors"), random_variables(depth, seed=1), depth
    )
    assert_equal(again, variables)
    assert line.endswith("w.safetensors, classifier taken")


def test_a_classifier_for_other_classes_stays_as_initialized(tmp_path: Path) -> None:
    file = tmp_path / "imagenet.safetensors"
    theirs = random_variables(classes=9)
    safetensors.numpy.save_file(named(theirs), file)
    ours = random_variables(classes=5, seed=1)
    started, line, *_ = started_from(str(file), ours)
    assert_equal(started["params"]["classifier"], ours["params"]["classifier"])
    assert_equal(started["params"]["backbone"], theirs["params"]["backbone"])
    assert_equal(started["batch_stats"], theirs["batch_stats"])
    assert line.endswith("classifier initialized, for 5 classes")


@pytest.mark.parametrize("is_of_run", [False, True])
def test_another_head_stays_as_initialized(is_of_run: bool) -> None:
    """Weights of the backbone fit any head, be they in a weight file or of a run."""
    theirs = random_variables(classes=9)
    table = OWN_PATHS if is_of_run else ResNet.table
    ours = random_variables(seed=1)
    ours["params"]["classifier"] = {"linear": {"kernel": np.ones((12, 5)), "bias": np.ones(5)}}
    ours["batch_stats"]["classifier"] = {"norm": {"mean": np.ones(4), "var": np.ones(4)}}
    started = from_tensors(to_tensors(theirs, table), ours, table, "a file")
    assert_equal(started["params"]["backbone"], theirs["params"]["backbone"])
    assert_equal(started["batch_stats"]["backbone"], theirs["batch_stats"]["backbone"])
    for collection in ("params", "batch_stats"):
        assert_equal(started[collection]["classifier"], ours[collection]["classifier"])
    # The whole of it is taken from a run with the same head, and back in a run with another.
    own = to_tensors(ours, OWN_PATHS)
    assert_equal(from_tensors(own, jax.tree.map(np.zeros_like, ours), OWN_PATHS, "a run"), ours)
    assert_equal(
        from_tensors(own, theirs, OWN_PATHS, "a run")["params"]["classifier"],
        theirs["params"]["classifier"],
    )
    tensors = {**to_tensors(theirs, ResNet.table), "fc.scale": np.zeros(3)}
    with pytest.raises(UserError, match=r"left over: fc\.scale$"):
        from_tensors(tensors, ours, ResNet.table, "a file")


def test_all_that_does_not_fit_is_named_at_once() -> None:
    tensors: Tensors = named(random_variables())
    del tensors["bn1.bias"], tensors["layer2.0.conv1.weight"]
    tensors["layer5.0.conv1.weight"] = np.zeros((1, 1, 1, 1), np.float32)
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :, :5]
    with pytest.raises(UserError) as caught:
        placed(tensors, random_variables(), "w.safetensors")
    message = str(caught.value)
    assert "missing: " in message
    assert {"bn1.bias", "layer2.0.conv1.weight"} <= set(re.split(r"[ ,;]+", message))
    assert "left over: layer5.0.conv1.weight" in message
    assert "of the wrong shape: conv1.weight [8, 3, 5, 7], not [8, 3, 7, 7]" in message
    assert "\n" not in message


def test_of_many_tensors_that_do_not_fit_the_first_are_named() -> None:
    tensors = named(random_variables())
    names = [name for name in tensors if not name.endswith("num_batches_tracked")]
    backbone, classifier = names[:-2], names[-2:]
    few = {name: tensors[name] for name in classifier}
    message = rf"missing: {', '.join(backbone[:3])} and {len(backbone) - 3} more$"
    with pytest.raises(UserError, match=message):
        placed(few, random_variables(), "w")


@pytest.mark.parametrize("kind", ["file", "run"])
def test_the_home_folder_is_expanded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    variables = random_variables()
    if kind == "file":
        safetensors.numpy.save_file(named(variables), tmp_path / "file")
    else:
        with checkpoints.Checkpoints(epath.Path(tmp_path) / "run" / "checkpoints") as saved:
            saved.save(3, {**variables, "step": jnp.int32(3)}, top1=None)
    started = started_from(f"~/{kind}", random_variables(seed=1))
    assert_equal(started.variables, variables)
    assert started.line == f"backbone from ~/{kind}, classifier taken"


def test_paths_are_named_with_the_flag() -> None:
    for path, message in (
        ("~no-such-user/w.pth", "there is no user 'no-such-user'"),
        ("s3://bucket/w.pth", "s3:// is not supported here"),
    ):
        with pytest.raises(UserError, match=f"--config.pretrained={path}: {message}"):
            started_from(path, random_variables())


def test_another_depth_does_not_fit() -> None:
    with pytest.raises(UserError, match=r"does not fit .* left over: layer1.2.bn1.*, .* more$"):
        placed(named(random_variables(34)), random_variables(18), "w")


def test_another_number_of_channels_of_images_is_named() -> None:
    tensors = named(random_variables())
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1]
    message = (
        r"^w is for images with 1 channels: conv1.weight has the shape \[8, 1, 7, 7\], and .* 3 "
    )
    with pytest.raises(UserError, match=message):
        placed(tensors, random_variables(), "w")


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, kept: float) -> None:
    file = tmp_path / "w.safetensors"
    data = safetensors.numpy.save(named(random_variables()))
    file.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UserError, match=r"w.safetensors is damaged or cut off"):
        started_from(str(file), random_variables())


def test_a_header_that_promises_too_much_is_named(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(UserError, match="damaged or cut off"):
        started_from(str(file), random_variables())


@pytest.mark.parametrize("name", ["nowhere.safetensors", "a/b/c", "no/such.pth", "resnet50"])
def test_what_is_neither_file_nor_hub_name_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"pretrained={name}: no such file or folder"):
        started_from(name, random_variables())


def test_offline_the_message_says_which_file_to_bring(tmp_path: Path) -> None:
    code = (
        "from fgr_jax.models.weights.published import _fetch\n"
        "from fgr_jax.errors import UserError\n"
        "try: _fetch('timm/resnet50.tv_in1k')\n"
        "except UserError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert done.stdout.count("\n") == 1, done.stderr
    assert "copy model.safetensors of timm/resnet50.tv_in1k" in done.stdout
    assert "--config.pretrained=FILE" in done.stdout
    assert "--config.network.backbone=tf_efficientnet_lite0" in done.stdout
    assert not done.stderr


def test_a_pth_is_read_without_pytorch(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"anything")
    with pytest.raises(UserError, match=r"w.pth is damaged or cut off"):
        started_from(str(tmp_path / "w.pth"), random_variables())


def test_another_runs_workdir_is_a_start(tmp_path: Path) -> None:
    variables = random_variables()
    with checkpoints.Checkpoints(epath.Path(tmp_path) / "checkpoints") as saved:
        saved.save(3, {**variables, "step": jnp.int32(3)}, top1=None)
    started, line, weights, _ = started_from(str(tmp_path), random_variables(seed=1))
    assert_equal(started, variables)
    assert "classifier taken" in line
    assert weights == f"{tmp_path}, which started from weights that are not recorded"
    for record in (
        {"step": 0, "weights": "random weights"},  # killed before its first checkpoint
        {"step": 0, "weights": "timm/resnet18.tv_in1k, license BSD-3-Clause"},
        {"step": 2},
    ):
        json_lines.append(tmp_path / PROVENANCE, record)
    weights = started_from(str(tmp_path), random_variables(seed=1)).weights
    assert weights == f"{tmp_path}, which started from timm/resnet18.tv_in1k, license BSD-3-Clause"
    with pytest.raises(UserError, match=r"holds no checkpoint: train there first"):
        started_from(str(tmp_path / "checkpoints"), variables)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.bin", "w", "w.SafeTensors"])
def test_the_content_of_a_file_says_what_it_is(name: str, tmp_path: Path) -> None:
    """Older versions exported safetensors under any name, and PyTorch's files have several suffixes."""
    variables, path = random_variables(), tmp_path / name
    safetensors.numpy.save_file(named(variables), path)
    assert_equal(started_from(str(path), random_variables(seed=1))[0], variables)
    for beginning in (b"PK\3\4", b"\x80\2"):
        path.write_bytes(beginning + b"rest")
        with pytest.raises(UserError, match=r"damaged or cut off") as caught:
            started_from(str(path), variables)
        assert isinstance(caught.value.__cause__, zipfile.BadZipFile | ValueError)


def start_where_only_process_0_finds_it(*places: str) -> None:
    """Runs in each of several processes. Prints digests of the variables, or the errors."""
    for place in places:
        mine = place if jax.process_index() == 0 else "elsewhere" + place
        try:
            started, line, *_ = started_from(mine, random_variables(seed=1))
        except UserError as error:
            print(f"error: {error}")
        else:
            print(digest(started), line.rpartition(", ")[2])


def digest(variables: Any) -> str:
    flat = flax.traverse_util.flatten_dict(variables, sep="/")
    return hashlib.sha256(
        b"".join(np.asarray(flat[path]).tobytes() for path in sorted(flat))
    ).hexdigest()


def test_one_process_reads_for_all(tmp_path: Path) -> None:
    """A damaged file, a file, and a workdir."""
    theirs = random_variables()
    file, damaged = tmp_path / "w.safetensors", tmp_path / "damaged.safetensors"
    safetensors.numpy.save_file(named(theirs), file)
    damaged.write_bytes(file.read_bytes()[:-10])
    with checkpoints.Checkpoints(epath.Path(tmp_path / "checkpoints")) as saving:
        saving.save(3, jax.tree.map(jnp.asarray, theirs), top1=None)
    printed = run_in_processes(
        start_where_only_process_0_finds_it, str(damaged), str(file), str(tmp_path)
    )
    for index, text in enumerate(printed):
        error, *lines = text.splitlines()[-3:]
        assert error.startswith("error: process 0: " if index else "error: ")
        assert "damaged.safetensors is damaged or cut off" in error
        assert lines == [f"{digest(theirs)} classifier taken"] * 2

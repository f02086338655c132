"""A run with what is beyond the paper: resumed, and opened by the other commands."""

import shutil
from pathlib import Path

import jax
import numpy as np
from networks import by_path
from small_backbones import PATCHES
from tiny_run import QUIET, tiny_config

from fgr_jax.distributed import data_mesh
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.models.network import build_network
from fgr_jax.models.weights.pretrained import start_from
from fgr_jax.runs import checkpoints
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train


def test_a_run_is_resumed_to_the_bit_and_its_average_is_used(
    data_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(PATCHES)
    config = tiny_config(data_dir)
    config.network.backbone = f"{tmp_path}/mine.py:noisy"
    config.runtime.devices = 1
    config.duration = config.evaluate_every = "9 steps"
    config.checkpoint_every = "5 steps"
    config.data.mixup = config.data.cutmix = 1.0
    config.loss.gce_start, config.loss.label_smoothing = "0 steps", 0.1
    section = config.optimizer
    section.name, section.learning_rate, section.layer_decay = "adamw", 0.01, 0.5
    section.clip_norm, section.average, section.accumulate = 1.0, 0.5, 2
    whole, folder = tmp_path / "whole", tmp_path / "resumed"
    train(config, Workdir.open(whole), QUIET)
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints" / "9")
    outcome = train(config, Workdir.open(folder), QUIET)
    assert (outcome.first_step, outcome.step) == (5, 9)
    for name in ("metrics.jsonl", "fingerprints.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    saved, again = (checkpoints.read(Workdir.open(run).checkpoints, 9) for run in (whole, folder))
    one, other = by_path(saved), by_path(again)
    assert one.keys() == other.keys()
    assert all(one[path].tobytes() == other[path].tobytes() for path in one)

    average, trained = (by_path(tree) for tree in (saved["average"]["params"], saved["params"]))
    assert all((average[path] != value).any() for path, value in trained.items())
    restored = restore(open_run(Workdir.open(folder)), None, data_mesh())
    network = build_network(config, 4)
    like = jax.tree.map(np.zeros_like, {name: saved[name] for name in ("params", "batch_stats")})
    started = start_from(str(folder), like, network.table, config.network).variables
    for found in (restored.variables, started):
        for path, value in by_path(found["params"]).items():
            np.testing.assert_array_equal(value, average[path])

"""What a run draws and compiles before its first step."""

import functools
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import QUIET
from tiny_step import CLASSES, as_numpy, build

from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.distributed import data_mesh
from fgr_jax.models.network import HEAD, build_network
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train
from fgr_jax.train.objective import build_objective
from fgr_jax.train.optimizer import build_optimizer
from fgr_jax.train.step import init_state


def test_what_is_compiled_quickly_draws_the_same_bits(small: Config) -> None:
    _, state = build(small)
    network = build_network(small, CLASSES)
    optimizer = build_optimizer(small, network, lambda _: jnp.float32(0.05))
    objective = build_objective(small, Calendar.of(small, small.batch_size), data_mesh())
    init = functools.partial(init_state, small, network, objective, optimizer)
    fully: dict[str, str | bool] = {
        "xla_backend_optimization_level": "3",
        "xla_llvm_disable_expensive_passes": False,
    }
    expected = jax.jit(init).lower().compile(fully)()
    for ours, theirs in zip(as_numpy(state), as_numpy(expected), strict=True):
        assert ours.tobytes() == theirs.tobytes()


def test_the_head_alone_is_drawn_as_with_all_others(small: Config) -> None:
    steps, whole = build(small)
    state = steps.init(head_only=True)
    for ours, theirs in zip(
        as_numpy(state.params[HEAD]), as_numpy(whole.params[HEAD]), strict=True
    ):
        assert ours.tobytes() == theirs.tobytes()
    assert any(leaf.any() for leaf in as_numpy(state.params[HEAD]))
    others = {name: leaves for name, leaves in state.params.items() if name != HEAD}
    assert as_numpy(others)
    assert not any(leaf.any() for leaf in as_numpy((others, state.batch_stats)))
    shapes = [jax.tree.map(np.shape, each) for each in (state, whole)]
    assert shapes[0] == shapes[1]


def test_a_run_that_is_resumed_draws_nothing(
    small: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small.duration, small.checkpoint_every, small.evaluate_every = "2 steps", "1 steps", "2 steps"
    small.runtime.fingerprint_every, small.runtime.devices = "1 steps", 1
    workdir, resumed = tmp_path / "whole", tmp_path / "resumed"
    for folder, is_drawn in ((workdir, True), (resumed, False)):
        caplog.clear()
        with jax.log_compiles():
            train(small, Workdir.open(folder), QUIET)
        assert any("XLA compilation of jit(train_step)" in line for line in caplog.messages)
        drawn = any("XLA compilation of jit(init_state)" in line for line in caplog.messages)
        assert drawn == is_drawn
        if folder == workdir:
            shutil.copytree(workdir, resumed)
            shutil.rmtree(resumed / "checkpoints" / "2")
    fingerprints = [(each / "fingerprints.jsonl").read_bytes() for each in (workdir, resumed)]
    assert fingerprints[0] == fingerprints[1]

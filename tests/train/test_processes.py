"""Several real processes that train one network over `jax.distributed`, on this machine's CPU."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags as absl_flags
from etils import epath
from several_processes import free_port
from tiny_run import ROOT, command, tiny_config

from fgr_jax import cli
from fgr_jax.errors import UserError
from fgr_jax.runs import checkpoints
from fgr_jax.runs.comparison import compare
from fgr_jax.runs.workdir import Workdir

STEPS = 20


def tiny_command(data_dir: Path, workdir: Path, *options: str) -> list[str]:
    config = tiny_config(data_dir)
    config.duration = f"{STEPS} steps"
    config.evaluate_every = config.checkpoint_every = "10 steps"
    config.loss.gce_start = "5 steps"
    # A difference in the last bit stays small for 20 steps.
    config.optimizer.learning_rate = 0.0003
    config.runtime.fingerprint_every = "1 steps"
    return command(config, workdir, *options)


def start(
    data_dir: Path, workdir: Path, processes: int, devices: int, *options: str
) -> list[subprocess.Popen[str]]:
    job = [f"--coordinator=localhost:{free_port()}", f"--process_count={processes}"]
    return [
        subprocess.Popen(
            tiny_command(
                data_dir,
                workdir,
                *(job if processes > 1 else []),
                *([f"--process_id={index}"] if processes > 1 else []),
                *options,
            ),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        )
        for index in range(processes)
    ]


def finish(started: list[subprocess.Popen[str]], status: int = 0) -> list[str]:
    printed = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [status] * len(started), printed
    return printed


def parameters(workdir: Path) -> np.ndarray:
    state = checkpoints.read_latest(epath.Path(workdir) / "checkpoints")
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(state["params"])]
    return np.concatenate(leaves)


def results(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def alone(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process with one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(data_dir, workdir, 1, 1))
    return workdir


@pytest.mark.long
@pytest.mark.parametrize(
    ("processes", "devices"),
    [(2, 2), (4, 1), (1, 4)],
)
def test_the_same_batches_and_masks_on_any_processes(
    data_dir: Path, alone: Path, tmp_path: Path, processes: int, devices: int
) -> None:
    workdir = tmp_path / "run"
    printed = finish(start(data_dir, workdir, processes, devices))
    comparison = compare(Workdir.open(alone), Workdir.open(workdir))
    assert comparison.steps == list(range(1, STEPS + 1))
    assert not {"images", "labels", "masks"} & comparison.parted.keys()
    ours, theirs = parameters(workdir), parameters(alone)
    difference = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    print(f"{processes} processes × {devices} devices: parameters differ by {difference:.1e}")
    assert difference < 1e-4
    for one, other in zip(results(workdir), results(alone), strict=True):
        assert (one["step"], one["split"]) == (other["step"], other["split"])
        assert (one["examples"], one["top1"]) == (other["examples"], other["top1"])
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert "results" in printed[0]
    assert all("results" not in text and "epoch" not in text for text in printed[1:])


@pytest.mark.long
def test_the_same_filters_from_features_on_two_processes(
    data_dir: Path, alone: Path, tmp_path: Path
) -> None:
    options = (
        "--config.network.head=dfl_cnn",
        "--config.network.head_from_features=True",
        f"--config.pretrained={alone}",
        "--config.optimizer.learning_rate=0.0",
    )
    filters = []
    for processes in (1, 2):
        workdir = tmp_path / str(processes)
        printed = finish(start(data_dir, workdir, processes, 1, *options))
        assert "initialized from features of 52 training images" in printed[0]
        state = checkpoints.read_latest(epath.Path(workdir) / "checkpoints")
        filters.append(state["params"]["classifier"]["filters"]["kernel"])
    one, two = filters
    np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    assert np.ptp(one) > 0.1


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
        pytest.param(signal.SIGPIPE, marks=pytest.mark.long),
    ],
)
def test_a_signal_to_one_saves_all_and_another_number_goes_on(
    data_dir: Path, alone: Path, tmp_path: Path, number: signal.Signals
) -> None:
    workdir = tmp_path / "run"
    started = start(data_dir, workdir, 2, 1)
    wait_for_step(workdir, 3, started)
    if number == signal.SIGPIPE:
        assert started[0].stdout
        started[0].stdout.close()
        started[0].stdout = None
    else:
        started[1].send_signal(number)
    printed = finish(started, status=128 + signal.SIGTERM)
    if number != signal.SIGPIPE:
        assert "saved; the same command resumes it" in printed[0]
    stopped_at = checkpoints.latest_step(epath.Path(workdir) / "checkpoints")
    assert stopped_at is not None
    assert 3 <= stopped_at < STEPS
    finish(start(data_dir, workdir, 1, 1))  # the other way round is below
    comparison = compare(Workdir.open(alone), Workdir.open(workdir))
    assert comparison.steps == list(range(1, STEPS + 1))
    assert not {"images", "labels", "masks"} & comparison.parted.keys()


@pytest.mark.long
def test_one_process_stops_and_two_go_on(data_dir: Path, alone: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    started = start(data_dir, workdir, 1, 1)
    wait_for_step(workdir, 3, started)
    started[0].send_signal(signal.SIGTERM)
    finish(started, status=128 + signal.SIGTERM)
    finish(start(data_dir, workdir, 2, 1))
    comparison = compare(Workdir.open(alone), Workdir.open(workdir))
    assert comparison.steps == list(range(1, STEPS + 1))
    assert not {"images", "labels", "masks"} & comparison.parted.keys()


def wait_for_step(workdir: Path, step: int, started: list[subprocess.Popen[str]]) -> None:
    path = workdir / "fingerprints.jsonl"
    while not (path.exists() and path.read_text().count("\n") >= step):
        assert all(process.poll() is None for process in started)
        time.sleep(0.02)


def test_an_error_on_one_process_is_told_by_all(data_dir: Path, alone: Path) -> None:
    started = start(data_dir, alone, 2, 1, "--config.seed=7")
    printed = finish(started, status=1)
    assert "belongs to a run with another config" in printed[0]
    assert "process 0: " in printed[1]
    assert all("Traceback" not in text for text in printed)


def test_a_job_that_does_not_come_together(data_dir: Path, tmp_path: Path) -> None:
    join = [f"--coordinator=localhost:{free_port()}", "--process_count=2", "--join_timeout=4"]
    for index in (0, 1):
        done = subprocess.run(
            tiny_command(data_dir, tmp_path / "run", *join, f"--process_id={index}"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith(
            "error: the 2 processes of the job did not come together at localhost"
        )
        assert "within 4 s" in last
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--coordinator=localhost:1"], "go together: give all three"),
        (["--process_id=1", "--process_count=2"], "go together: give all three"),
        (
            ["--coordinator=localhost:1", "--process_id=2", "--process_count=2"],
            "--process_id=2: must be from 0 to 1",
        ),
    ],
)
def test_half_a_job_is_refused(flags: list[str], message: str) -> None:
    own_flags = absl_flags.FlagValues()
    cli.define_job_flags(own_flags)
    own_flags(["main", *flags])
    with pytest.raises(UserError, match=message):
        cli.join_job(own_flags, saves=True)

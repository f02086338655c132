"""Whole runs, as processes where these matter: repeated, interrupted, resumed, and put in trouble."""

import contextlib
import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pyte
import pytest
from tiny_run import QUIET, ROOT, command, config_flags, tiny_config

from fgr_jax import config as config_lib
from fgr_jax import main as main_lib
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.data.sets.synthetic import Synthetic, SyntheticConfig
from fgr_jax.errors import DivergedError, UserError
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal
from fgr_jax.train import evaluation
from fgr_jax.train import loop as run_lib

TOTAL_STEPS = 20  # 52 images in batches of 8, three epochs: ⌈19.5⌉


def run(config: Config, workdir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(config, workdir, *more), cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def finish(config: Config, workdir: Path, *more: str) -> subprocess.CompletedProcess[str]:
    done = run(config, workdir, *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def main_here(config: Config, workdir: Path) -> int:
    """Runs the command in this process."""
    return main_lib.main(["main", *config_flags(config), f"--workdir={workdir}"])


def saved_steps(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def saved_state(workdir: Path, step: int) -> dict[str, Any]:
    """Every array of a checkpoint by its path, read without our own code."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(workdir.absolute() / "checkpoints" / str(step) / "default")
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Same final state, to the bit, and the same results."""
    one, other = saved_state(ours, TOTAL_STEPS), saved_state(theirs, TOTAL_STEPS)
    assert one.keys() == other.keys()
    assert len(one) > 40
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name
    for name in ("metrics.jsonl", "fingerprints.jsonl", "test_predictions.csv"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()


def assert_one_line_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    for part in parts:
        assert part in errors[0], errors[0]


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The workdir and the output of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    done = finish(tiny_config(data_dir), workdir)
    return workdir, done.stdout + done.stderr


@pytest.fixture
def config(data_dir: Path) -> Config:
    return tiny_config(data_dir)


def test_a_run_leaves_what_it_promises(finished: tuple[Path, str]) -> None:
    workdir, output = finished
    assert {path.name for path in workdir.iterdir()} == {
        *("checkpoints", "classes.json", "config.json", "metrics.jsonl"),
        *(
            "provenance.jsonl",
            "data.json",
            "lock",
            "tensorboard",
            "fingerprints.jsonl",
            "timings.jsonl",
            "test_predictions.csv",
        ),
    }
    metrics = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    assert [(m["step"], m["split"]) for m in metrics] == [
        (step, split) for step in (7, 13, TOTAL_STEPS) for split in ("train", "test")
    ]
    # Every example of the 52 three times, and 4 more to fill the last batch; every test one once.
    assert [m["examples"] for m in metrics if m["split"] == "train"] == [56, 48, 56]
    assert [m["examples"] for m in metrics if m["split"] == "test"] == [27, 27, 27]
    labels, predicted = np.loadtxt(
        workdir / "test_predictions.csv", int, delimiter=",", skiprows=1
    ).T
    assert len(labels) == 27
    assert np.mean(labels == predicted) == pytest.approx(metrics[-1]["top1"])
    assert metrics[-1]["step"] in saved_steps(workdir)
    assert json.loads((workdir / "classes.json").read_text())[3] == "place 3"
    provenance = json.loads((workdir / "provenance.jsonl").read_text().splitlines()[0])
    assert provenance["packages"]["jax"]
    assert provenance["devices"] == ["cpu:0 cpu"]
    assert "--xla_gpu_deterministic_ops=true" in provenance["xla_flags"]
    assert f"{metrics[-1]['top1']:.1%}" in output
    assert list((workdir / "tensorboard").iterdir())


def test_in_a_pipe_there_is_no_bar_and_no_color(finished: tuple[Path, str]) -> None:
    _, output = finished
    assert "\r" not in output
    assert "\x1b" not in output
    assert len([line for line in output.splitlines() if line.startswith("epoch ")]) == 3


def test_the_same_run_twice_is_the_same_to_the_bit(
    config: Config, finished: tuple[Path, str], tmp_path: Path
) -> None:
    config.runtime.decode_threads = 5
    config.runtime.decode_workers = 1
    finish(config, tmp_path / "run")
    assert_same_run(tmp_path / "run", finished[0])


@pytest.mark.long
def test_another_seed_is_another_run(
    config: Config, finished: tuple[Path, str], tmp_path: Path
) -> None:
    config.seed = 1
    finish(config, tmp_path / "run")
    one, other = (saved_state(path, TOTAL_STEPS) for path in (tmp_path / "run", finished[0]))
    kernels = [name for name in one if "params" in name and "kernel" in name]
    assert len(kernels) > 20
    assert all((one[name] != other[name]).any() for name in kernels)


def start_and_signal(
    config: Config, workdir: Path, number: signal.Signals, after_line: str
) -> tuple[int, str]:
    """Starts a run and sends a signal to its processes once it has printed such a line."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command(config, workdir),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,  # as a terminal does: a signal goes to the workers too
    ) as process:
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if line.startswith(after_line):
                os.killpg(process.pid, number)
                break
        seen += process.stdout.read()
    deadline = time.monotonic() + 20
    while _is_alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_alive(process.pid), "worker processes are left behind"
    return process.returncode, seen


def _is_alive(group: int) -> bool:
    """Whether any process of a process group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGINT, 1),
        (signal.SIGTERM, 0),
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.long),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    config: Config,
    finished: tuple[Path, str],
    tmp_path: Path,
    number: signal.Signals,
    workers: int,
) -> None:
    config.runtime.decode_workers = workers
    workdir = tmp_path / "run"
    status, output = start_and_signal(config, workdir, number, "epoch 1")
    assert status == 128 + number, output
    assert "Traceback" not in output
    assert "the same command resumes it" in output
    stopped_at = saved_steps(workdir)[-1]
    assert 7 <= stopped_at < TOTAL_STEPS
    done = finish(config, workdir)
    assert f"step {stopped_at} of this workdir" in done.stdout
    assert_same_run(workdir, finished[0])


@pytest.mark.parametrize("evaluating", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_killed_worker_process_ends_the_run_saved(
    config: Config, finished: tuple[Path, str], tmp_path: Path, evaluating: bool
) -> None:
    config.runtime.decode_workers = 1
    workdir = tmp_path / "run"
    with subprocess.Popen(
        command(config, workdir),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("epoch 1"):
                break
        process.send_signal(signal.SIGSTOP)  # the run is short
        os.kill(worker_processes(process.pid)[-1 if evaluating else 0], signal.SIGKILL)
        process.send_signal(signal.SIGCONT)
        output, errors = process.communicate(timeout=60)
    (error,) = errors.splitlines()
    step = saved_steps(workdir)[-1]
    assert process.returncode == 1, output + errors
    assert error.startswith(
        "error: a decoding process was killed (SIGKILL), as the system does when "
    )
    assert "--config.runtime.decode_workers=0" in error
    assert error.endswith(f"Step {step} is saved, and the same command resumes the run")
    config.runtime.decode_workers = 0
    finish(config, workdir)
    assert_same_run(workdir, finished[0])


def worker_processes(parent: int) -> list[int]:
    """The processes that decode, oldest first: for training, then for evaluation."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(parent), "--sort=start_time"],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def test_killed_and_resumed_equals_uninterrupted(
    config: Config, finished: tuple[Path, str], tmp_path: Path
) -> None:
    workdir = tmp_path / "run"
    status, _ = start_and_signal(config, workdir, signal.SIGKILL, "epoch 2")
    assert status == -signal.SIGKILL
    # A kill in the middle of a line, too: the file is cut off where the checkpoint is.
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 17, "split": "tr')
    finish(config, workdir)
    assert_same_run(workdir, finished[0])


def test_a_finished_run_says_so_and_changes_nothing(
    config: Config, finished: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*jsonl")}
    assert main_here(config, workdir) == 0
    assert "this run is finished: 20 of 20 steps" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*jsonl")} == before


def test_a_workdir_of_another_config_is_refused_and_left_alone(
    config: Config, finished: tuple[Path, str]
) -> None:
    workdir, _ = finished
    before = (workdir / "config.json").read_bytes()
    config.loss.k = 3
    config.optimizer.learning_rate = 0.01
    with pytest.raises(UserError) as raised:
        main_here(config, workdir)
    message = str(raised.value)
    assert message.startswith(f"--workdir={workdir} belongs to a run with another config")
    assert "loss.k (there 2, now 3)" in message
    assert "optimizer.learning_rate (there 0.05, now 0.01)" in message
    assert "batch_size" not in message
    assert "\n" not in message
    assert (workdir / "config.json").read_bytes() == before


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(
    small: Config, tmp_path: Path
) -> None:
    small.optimizer.learning_rate = 1e12
    small.optimizer.warmup = "2 epochs"  # the first checkpoint is still of finite weights
    small.checkpoint_every = "1 step"
    small.optimizer.weight_decay = 0.0
    small.runtime.devices = 1
    with pytest.raises(
        DivergedError, match=r"^the loss became .* at step .*learning_rate"
    ) as raised:
        run_lib.train(small, Workdir.open(tmp_path / "run"), QUIET)
    assert "\n" not in str(raised.value)
    step = int(str(raised.value).split(" at step ")[1].split(";")[0])
    last = saved_steps(tmp_path / "run")[-1]
    assert last < step
    state = saved_state(tmp_path / "run", last)
    assert all(np.isfinite(array).all() for array in state.values())


def test_a_data_set_that_is_not_prepared_leaves_nothing_behind(tmp_path: Path) -> None:
    config = Config(data=config_lib.Data(name="cub", data_dir=str(tmp_path / "tfds")))
    message = r"^data set 'cub' is not prepared in .*--config\.data\.data_dir"
    with pytest.raises(UserError, match=message) as raised:
        main_here(config, tmp_path / "run")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_batch_must_be_divisible_by_the_devices(config: Config, tmp_path: Path) -> None:
    config.batch_size, config.runtime.devices = 6, 4
    message = r"^--config\.batch_size=6: must be a multiple .* which is 4 here$"
    with pytest.raises(UserError, match=message):
        main_here(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Truncated(Synthetic):
    """`Synthetic` with one training image cut off, as a broken copy leaves it."""

    name = "truncated"
    BUILDER_CONFIGS = [  # noqa: RUF012  # tfds's own interface
        SyntheticConfig(
            name="tiny", height=40, width=48, classes=4, train_examples=52, test_examples=27
        )
    ]

    def _generate_examples(self, split: str, count: int):  # type: ignore[no-untyped-def]
        for key, example in super()._generate_examples(split, count):
            if key == "train/00017.jpg":
                example["image"] = example["image"][: len(example["image"]) // 2]
            yield key, example


@pytest.fixture(scope="module")
def truncated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("truncated")
    Truncated(
        config="tiny", data_dir=str(folder), file_format="array_record"
    ).download_and_prepare()
    return folder


def test_a_truncated_image_is_skipped_and_counted_when_asked(
    small: Config, truncated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small.data.name, small.data.data_dir = "truncated/tiny", str(truncated)
    small.data.corrupt_images = "skip"
    small.duration = "2 epochs"  # exactly 13 batches
    small.runtime.devices = 1
    assert main_here(small, tmp_path / "run") == 0
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert sum(m["skipped"] for m in metrics if m["split"] == "train") == 2
    assert sum(m["examples"] for m in metrics if m["split"] == "train") == 102
    assert "(1 images skipped)" in capsys.readouterr().out


def test_gce_at_its_chance_level_is_said_once(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.optimizer.learning_rate = 1e-9
    config.loss.gce_start = "0 steps"
    config.diversification.alpha = 0.0  # scores near 0: the loss is ln(k + 1)
    config.diversification.p_peak = config.diversification.p_patch = 1.0
    config.runtime.devices = 1
    assert main_here(config, tmp_path / "run") == 0
    printed = capsys.readouterr().out
    warnings = [line for line in printed.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "ln(k + 1) = 1.099" in warnings[0]
    assert "gce_start" in warnings[0]


FULL_DISK = """
set -e
mount -t tmpfs -o size={size}k none {disk}
status=0
{command} > {disk}.first 2>&1 || status=$?
echo "status $status"
ls -A {disk}/run/checkpoints
mount -o remount,size=100m {disk}
{command}
cp -r {disk}/run {kept}
"""


def test_a_full_disk_loses_nothing(
    config: Config, finished: tuple[Path, str], tmp_path: Path
) -> None:
    """On a file system of its own, with room for one checkpoint and a half."""
    one = sum(f.stat().st_size for f in (finished[0] / "checkpoints" / "20").rglob("*"))
    disk = tmp_path / "disk"
    disk.mkdir()
    script = FULL_DISK.format(
        size=int(one * 1.6 / 1024) + 1000,
        disk=disk,
        kept=tmp_path / "kept",
        command=" ".join(f"'{word}'" for word in command(config, disk / "run")),
    )
    unshare = shutil.which("unshare")
    assert unshare is not None, "this test needs util-linux's unshare"
    done = subprocess.run(
        [unshare, "--mount", "--map-root-user", "bash", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    first = (tmp_path / "disk.first").read_text()
    assert "status 1" in done.stdout, first + done.stderr
    assert "Traceback" not in first, first
    errors = [line for line in first.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, first
    assert "No space left on device" in errors[0]
    assert "run the same command again" in errors[0]
    # Only complete checkpoints, and with room the run ends as if nothing had been.
    listed = done.stdout.split("status 1\n")[1].splitlines()
    assert listed[0] == "7"
    assert not any("tmp" in name for name in listed[:2])
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "kept", finished[0])


def test_interrupted_evaluations_are_made_when_the_run_is_resumed(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is saved as it was before the first evaluation, and before that of the last step."""
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    batches_read = []

    def interrupted(steps: Any, state: Any, batches: Any, *others: Any) -> Any:
        if int(state.step) in to_interrupt:
            os.kill(os.getpid(), signal.SIGHUP)
            batches = map(counted, batches)
        return evaluation.evaluate(steps, state, batches, *others)

    def counted(batch: Any) -> Any:
        batches_read.append(batch)
        return batch

    def train(workdir: Path) -> run_lib.Outcome:
        (workdir / "lock").unlink(missing_ok=True)  # held until this process ends
        return run_lib.train(config, Workdir.open(workdir), Terminal(quiet=True))

    to_interrupt: tuple[int, ...] = ()
    train(whole)
    monkeypatch.setattr(run_lib, "evaluate", interrupted)
    for step in (7, TOTAL_STEPS):
        to_interrupt = (step,)
        outcome = train(workdir)
        assert (outcome.interrupted_by, outcome.step) == (signal.SIGHUP, step)
        assert saved_steps(workdir)[-1] == step
        assert not (workdir / "checkpoints" / str(step) / "metrics").exists()
        last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
        assert (last["step"], last["split"]) == (step, "train")
    assert len(batches_read) == 2  # of 4 in each
    to_interrupt = ()
    outcome = train(workdir)
    assert (outcome.first_step, outcome.step) == (TOTAL_STEPS, TOTAL_STEPS)
    assert outcome.interrupted_by is None
    assert_same_run(workdir, whole)
    # The same checkpoints are kept, with their accuracies.
    assert saved_steps(workdir) == saved_steps(whole)
    for step in saved_steps(whole):
        accuracy = Path("checkpoints", str(step), "metrics", "metrics")
        assert (workdir / accuracy).read_bytes() == (whole / accuracy).read_bytes()


def test_the_fade_of_the_config_reaches_the_step(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.loss.gce_start, config.loss.gce_fade = "2 steps", "1 epoch"
    given = {}

    class Enough(Exception):  # noqa: N818  # nothing is wrong
        pass

    def build_objective(_config: Config, calendar: Calendar, *_: Any) -> Any:
        given["calendar"] = calendar
        raise Enough

    monkeypatch.setattr(run_lib, "build_objective", build_objective)
    with pytest.raises(Enough):
        run_lib.train(config, Workdir.open(tmp_path / "run"), Terminal(quiet=True))
    calendar = given["calendar"]
    assert (calendar.gce_start_step, calendar.gce_fade_steps) == (2, 7)


@pytest.mark.long
def test_centers_are_saved_and_a_resumed_run_goes_on_with_them(
    config: Config, tmp_path: Path
) -> None:
    config.loss.center, config.loss.gce_start = 0.3, "never"
    finish(config, tmp_path / "whole")
    workdir = tmp_path / "run"
    status, output = start_and_signal(config, workdir, signal.SIGTERM, "epoch 1")
    assert status == 128 + signal.SIGTERM, output
    centers = saved_state(workdir, saved_steps(workdir)[-1])["['centers']"]
    finish(config, workdir)
    assert_same_run(workdir, tmp_path / "whole")
    assert centers.any()
    assert (saved_state(workdir, TOTAL_STEPS)["['centers']"] != centers).any()


def test_one_process_to_a_workdir(config: Config, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    workdir.mkdir()
    with (workdir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=f"^--workdir={workdir}: another process is training"):
            main_here(config, workdir)
    assert [path.name for path in workdir.iterdir()] == ["lock"]


def test_the_advice_of_an_error_can_be_followed_in_the_same_workdir(
    small: Config, truncated: Path, tmp_path: Path
) -> None:
    small.data.name, small.data.data_dir = "truncated/tiny", str(truncated)
    small.duration = "10 steps"
    done = run(small, tmp_path / "run")
    advice = "--config.data.corrupt_images=skip"
    assert_one_line_error(done, "train/00017.jpg is truncated", advice)
    small.data.corrupt_images = "skip"
    finish(small, tmp_path / "run")


def test_on_a_terminal_the_epoch_lines_stay(small: Config, tmp_path: Path) -> None:
    """What is on the screen at the end, through a terminal emulator."""
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        command(small, tmp_path / "run"),
        cwd=ROOT,
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "60"},
    ) as process:
        os.close(secondary)
        screen = pyte.Screen(150, 60)
        stream = pyte.ByteStream(screen)
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(primary, 65536):
                stream.feed(data)
    os.close(primary)
    assert process.returncode == 0
    lines = [line.rstrip() for line in screen.display]
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1.077", "2", "3.077"]
    assert all("test loss" in line for line in epochs)
    assert not [line for line in lines if line.startswith(("training ━", "evaluating"))]


def test_a_second_ctrl_c_stops_at_once(small: Config, tmp_path: Path) -> None:
    small.duration = "200 epochs"
    small.evaluate_every = small.checkpoint_every = "200 epochs"
    with subprocess.Popen(
        command(small, tmp_path / "run"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(signal.SIGSTOP)  # so that both signals are there before the next step
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGCONT)
        _, errors = process.communicate(timeout=60)
    # The system may deliver either first.
    assert process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "stopped without saving" in errors
    assert "Traceback" not in errors

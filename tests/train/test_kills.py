"""Runs that are stopped at random moments by every signal, against the same run left in peace.

MOMENTS=50 MOMENTS_SEED=1 MOMENTS_FOLDER=FOLDER in the environment of the long test try 50 others, and
continue in FOLDER where the test was stopped itself.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from feature_runs import feature_config
from phases import COMPUTING, PHASES
from tiny_run import ROOT, config_flags, small_config

from fgr_jax.config import Config
from fgr_jax.features.opening import features_dir
from fgr_jax.files import json_lines
from fgr_jax.runs.logs import is_evaluated

STEPS = 120
POLL = 0.001  # seconds
# The time that a phase takes about, in seconds; the moment lies within it.
LASTS = {
    "importing": 1.5,
    "opening": 0.1,
    "compiling": 0.4,
    "starting": 0.3,
    "starting workers": 2,
    "training": 0.1,
    "evaluating": 0.02,
    "saving": 0.03,
    "ending": 0.02,
    COMPUTING: 1,
}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, signal.SIGPIPE)


def frequent(data_dir: Path) -> Config:
    """A run that is nearly always saving or evaluating."""
    return with_everything_recorded(small_config(data_dir))


def with_everything_recorded(config: Config) -> Config:
    config.duration = f"{STEPS} steps"
    config.checkpoint_every = "5 steps"
    config.evaluate_every = "1 epoch"
    config.runtime.fingerprint_every = "1 steps"
    return config


class Run:
    """A process that trains, and where it is."""

    def __init__(self, config: Config, workdir: Path):
        self.phase_file = workdir.with_name("phase")
        self.phase_file.write_text("python")
        script = [sys.executable, str(ROOT / "tests" / "support" / "phases.py")]
        arguments = [str(self.phase_file), *config_flags(config), f"--workdir={workdir}"]
        self.process = subprocess.Popen(
            [*script, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=(workdir.parent / "errors").open("wb"),
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        self._errors = workdir.parent / "errors"

    @property
    def phase(self) -> str:
        return self.phase_file.read_text().strip()

    def wait_until(self, moment: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.process.poll() is None and not moment() and time.monotonic() < deadline:
            time.sleep(POLL)

    def send(self, number: signal.Signals, *, to_all: bool) -> None:
        """Sends a signal to the process, or to its workers too, as a terminal does."""
        if number == signal.SIGPIPE:
            assert self.process.stdout
            self.process.stdout.close()
        elif to_all and number != signal.SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    def end(self) -> str:
        """Waits until the process ends and all its workers with it; returns what it printed."""
        assert self.process.stdout
        printed = b"" if self.process.stdout.closed else self.process.stdout.read()
        self.process.wait(timeout=120)
        self.process.stdout.close()
        deadline = time.monotonic() + 20
        while is_alive(self.process.pid):
            assert time.monotonic() < deadline, "processes are left behind"
            time.sleep(0.01)
        return printed.decode() + self._errors.read_text()


def is_alive(group: int) -> bool:
    """Whether any process of a process group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def saved_states(workdir: Path) -> dict[int, dict[str, np.ndarray]]:
    """Every array of every complete checkpoint, read without our own code."""
    states = {}
    for folder in (workdir / "checkpoints").glob("[0-9]*"):
        if folder.name.isdigit():
            with ocp.StandardCheckpointer() as checkpointer:
                tree = checkpointer.restore(folder.absolute() / "default")
            states[int(folder.name)] = {
                jax.tree_util.keystr(path): np.asarray(leaf)
                for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
            }
    return states


def last_step(workdir: Path) -> int:
    folders = (workdir / "checkpoints").glob("[0-9]*")
    return max((int(path.name) for path in folders if path.name.isdigit()), default=0)


def is_finished(workdir: Path) -> bool:
    return last_step(workdir) == STEPS and is_evaluated(workdir, STEPS, "test")


def assert_same_run(ours: Path, undisturbed: Path) -> None:
    for name in ("metrics.jsonl", "fingerprints.jsonl"):
        assert (ours / name).read_bytes() == (undisturbed / name).read_bytes(), name
    records = json_lines.read(ours / "metrics.jsonl")
    assert len({(record["step"], record["split"]) for record in records}) == len(records)
    steps = [record["step"] for record in json_lines.read(ours / "fingerprints.jsonl")]
    assert steps == list(range(1, STEPS + 1))
    one, other = (saved_states(path)[STEPS] for path in (ours, undisturbed))
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name


def stop_once(
    config: Config,
    workdir: Path,
    chance: random.Random,
    number: int,
    wanted: str,
    signals: Sequence[signal.Signals] = SIGNALS,
) -> dict[str, str]:
    """Starts or resumes a run, stops it at a random moment of a phase, and checks how it ended."""
    config.runtime.decode_workers = number % 2 * chance.choice([1, 2])
    config.runtime.decode_threads = chance.choice([1, 2, 3])
    *often, seldom = signals
    how = often[number % len(often)] if often and chance.random() < 0.85 else seldom
    if wanted == "starting workers" and not config.runtime.decode_workers:
        wanted = "training"
    before = last_step(workdir)
    run = Run(config, workdir)
    run.wait_until(lambda: run.phase != "python", 60)
    run.wait_until(lambda: run.phase == wanted, 60 if wanted == "ending" else 20)
    time.sleep(chance.uniform(0, LASTS[wanted]))
    phase = run.phase
    if run.process.poll() is None:
        run.send(how, to_all=chance.random() < 0.5)
    output, status = run.end(), run.process.returncode
    told = f"{number}: {how.name} while {phase}, status {status}, after step {before}\n{output}"
    if how != signal.SIGKILL:  # worker processes that were just being started complain
        assert "Traceback" not in output, told
        assert "Exception ignored" not in output, told
    if status == 0:
        assert is_finished(workdir), told
        how_ended = "finished"
    elif how == signal.SIGKILL:
        assert status == -how, told
        how_ended = how.name
    else:
        assert status == 128 + how, told
        how_ended = how.name
        stopped = re.search(r"stopped after step (\d+) of", output)
        if stopped:
            assert last_step(workdir) == int(stopped.group(1)), told
        else:  # nothing was done yet, or all was done
            assert last_step(workdir) in (before, STEPS), told
        if how != signal.SIGPIPE:
            assert stopped or f"stopped by {how.name}" in output, told
    assert last_step(workdir) >= before, told
    if how == signal.SIGKILL and phase == "saving":
        saved_states(workdir)  # none is unreadable
    source = "processes" if config.runtime.decode_workers else "threads"
    return {"phase": phase, "signal": how_ended, "source": source}


def table(moments: list[dict[str, str]]) -> str:
    names = [each.name for each in SIGNALS] + ["finished"]
    found = Counter((each["phase"], each["signal"]) for each in moments)
    rows = [["phase", *names]]
    for phase in [*PHASES, COMPUTING, ""]:
        row = [sum(n for (p, s), n in found.items() if p == phase and s == name) for name in names]
        rows.append([phase or "other", *map(str, row)])
    sources = Counter(each["source"] for each in moments)
    lines = ["".join(f"{cell:>17}" for cell in row) for row in rows]
    return "\n".join([*lines, f"{len(moments)} moments, with {dict(sources)}"])


def try_moments(data_dir: Path, folder: Path, count: int, seed: int) -> list[dict[str, str]]:
    """Stops runs `count` times, and compares each that gets to its end with an undisturbed one."""
    config, undisturbed = frequent(data_dir), folder / "undisturbed"
    if not (undisturbed.exists() and is_finished(undisturbed)):
        run = Run(config, undisturbed)
        output = run.end()
        assert run.process.returncode == 0, output
    tried = folder / "moments.jsonl"
    moments = [json.loads(line) for line in tried.open()] if tried.exists() else []
    compared = sum(each["signal"] == "compared" for each in moments)
    moments = [each for each in moments if each["signal"] != "compared"]
    workdir = folder / f"run-{compared}"

    def note(record: dict[str, str]) -> None:
        with tried.open("a") as file:
            file.write(json.dumps(record) + "\n")

    while len(moments) < count:
        chance = random.Random(f"{seed} {len(moments)}")
        wanted = PHASES[len(moments) // 2 % len(PHASES)]
        moments.append(stop_once(config, workdir, chance, len(moments), wanted))
        note(moments[-1])
        if is_finished(workdir) or len(moments) == count:
            run = Run(config, workdir)  # ends the run, or finds that it is finished
            output = run.end()
            assert run.process.returncode == 0, output
            assert_same_run(workdir, undisturbed)
            note({"signal": "compared"})
            compared += 1
            workdir = folder / f"run-{compared}"
    print(f"\n{table(moments)}\n{compared} runs were finished and are the undisturbed run")
    return moments


@pytest.mark.long
def test_stopped_at_200_moments_is_the_run_left_in_peace(data_dir: Path, tmp_path: Path) -> None:
    folder = Path(os.environ.get("MOMENTS_FOLDER", tmp_path))
    count, seed = (int(os.environ.get(name, default)) for name, default in SIZE.items())
    moments = try_moments(data_dir, folder, count, seed)
    if count >= 200:
        assert {each["phase"] for each in moments} == set(PHASES)


@pytest.mark.long
def test_killed_20_times_on_cached_features_is_the_run_left_in_peace(
    data_dir: Path, tmp_path: Path
) -> None:
    """Features that were removed are computed again, and killed there, too."""
    shutil.copytree(data_dir / "synthetic", tmp_path / "data" / "synthetic")
    config = with_everything_recorded(feature_config(tmp_path / "data"))
    assert "error" not in Run(config, tmp_path / "undisturbed").end()
    assert is_finished(tmp_path / "undisturbed")
    moments: list[dict[str, str]] = []
    compared, workdir = 0, tmp_path / "run-0"
    while len(moments) < 20:
        number = len(moments)
        wanted = (COMPUTING, *PHASES)[number % (1 + len(PHASES))]
        if wanted == COMPUTING:
            shutil.rmtree(features_dir(config.data.data_dir))
        chance = random.Random(number)
        moments.append(stop_once(config, workdir, chance, number, wanted, [signal.SIGKILL]))
        if is_finished(workdir) or len(moments) == 20:
            assert "error" not in Run(config, workdir).end()
            assert_same_run(workdir, tmp_path / "undisturbed")
            compared += 1
            workdir = tmp_path / f"run-{compared}"
    print(f"\n{table(moments)}\n{compared} runs were finished and are the undisturbed run")
    assert COMPUTING in {each["phase"] for each in moments}


SIZE = {"MOMENTS": "200", "MOMENTS_SEED": "0"}


def test_stopped_at_some_moments_is_the_run_left_in_peace(data_dir: Path, tmp_path: Path) -> None:
    try_moments(data_dir, tmp_path, 6, seed=3)

"""Compares runs, and repeats the first steps of one under other circumstances."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from fgr_jax.cli import Invocation
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.runs import checkpoints
from fgr_jax.runs.comparison import compare
from fgr_jax.runs.logs import STREAMS
from fgr_jax.runs.workdir import FINGERPRINTS, Workdir
from fgr_jax.terminal import Terminal

# The fingerprints that must not depend on the number of devices.
_ON_ANY_DEVICES = ("images", "labels", "masks")
_POLL = 0.02  # seconds
_SECOND = "a second time"


def compare_runs(one: str, other: str) -> int:
    """Compares the runs in two workdirs; returns 0 if they are the same, and otherwise 1.

    Raises:
      UserError: one of them is no run, or they have no fingerprints in common.
    """
    terminal = Terminal()
    comparison = compare(*(Workdir.open(run, flag="") for run in (one, other)))
    steps = comparison.steps
    compared = f"{len(steps):,} fingerprints of steps {steps[0]:,} to {steps[-1]:,}"
    if comparison.same:
        terminal.line(f"the same run: {compared} are bitwise equal, and so are the metrics")
    elif comparison.first_parted is None:
        terminal.line(f"{compared} are bitwise equal, but the metrics differ")
    else:
        step, stream = comparison.first_parted
        last = comparison.last_same_step
        since = (
            "from the start" if last is None else f"after step {last:,}, the last that is the same"
        )
        terminal.line(f"they diverge at step {step:,}, first in the {stream} ({since})")
        for name in STREAMS:
            at = comparison.parted.get(name)
            verdict = "the same" if at is None else f"differ from step {at:,}"
            terminal.line(f"  {name:<10} {verdict}")
    if comparison.missing:
        terminal.line(f"only one of them recorded {len(comparison.missing):,} of the steps between")
    for difference in comparison.differences:
        terminal.line(f"  different  {difference}")
    if not comparison.differences:
        terminal.line("  config, data, versions and devices are the same")
    return int(not comparison.same)


def repeat(invocation: Invocation, steps: int, *, synthetic: bool) -> int:
    """Repeats the first steps of a config; returns 0 if they are as promised, and otherwise 1.

    Args:
      invocation: the config, and the arguments that it was made of.
      steps: their number.
      synthetic: whether to train on generated images from random weights.

    Raises:
      UserError: a run fails.
    """
    config_arguments = invocation.config_arguments
    config = invocation.config
    if synthetic:
        config.data.split = "given"
        config_arguments += ["--config.data.split=given", "--config.data.test_share=0.2"]
        config_arguments += ["--config.data.validation_share=0", "--config.data.group=0"]
        config_arguments += ["--config.data.validation_split="]
        config_arguments += ["--config.data.name=synthetic/photographs", "--config.pretrained="]
        config_arguments += ["--config.data.folder=", "--config.data.table="]
        config_arguments += ["--config.data.table_columns="]
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        if synthetic:
            config_arguments.append(f"--config.data.data_dir={folder}/data")
        return _experiment(config_arguments, config, steps, Path(folder), Terminal())


def _experiment(
    config_arguments: list[str], config: Config, steps: int, folder: Path, terminal: Terminal
) -> int:
    batch_size, has_test_split = config.batch_size, config.data.split == "given"
    base = [
        *[sys.executable, "-m", "fgr_jax.main", *config_arguments, "--config.runtime.report=False"],
        f"--config.duration={steps} steps",
        f"--config.evaluate_every={steps} steps",
        *([f"--config.data.test_split=test[:{batch_size}]"] if has_test_split else []),
        f"--config.checkpoint_every={max(1, steps // 4)} steps",
        "--config.runtime.fingerprint_every=1 steps",
        # The first run and the second one compile, and the others read what the first one compiled.
        f"--config.runtime.compilation_cache={folder}/compiled",
    ]
    runs: dict[str, list[str]] = {
        _SECOND: [],
        "1 thread": ["--config.runtime.decode_threads=1"],
        "7 threads": ["--config.runtime.decode_threads=7"],
        "2 worker processes": ["--config.runtime.decode_workers=2"],
        "killed and resumed": [],
    }
    if jax.device_count() > 1:
        runs["on one device"] = ["--config.runtime.devices=1"]
    first = folder / "first"
    rows, all_as_promised = [], True
    with terminal.bar("running", len(runs) + 1, unit="runs", per=1) as bar:
        _run(base, first)
        for done, (name, options) in enumerate(runs.items(), start=1):
            bar.update(done, name)
            workdir = folder / name.replace(" ", "-")
            if name == "killed and resumed":
                _kill_at([*base, *options], workdir, step=max(1, steps // 2))
            _run([*base, *options], workdir, compiles=name == _SECOND)
            comparison = compare(Workdir.open(first), Workdir.open(workdir))
            promised = _ON_ANY_DEVICES if name == "on one device" else STREAMS
            complete = len(comparison.steps) == steps
            as_promised = complete and not set(promised) & comparison.parted.keys()
            all_as_promised &= as_promised
            cells = [
                f"from step {comparison.parted[stream]}" if stream in comparison.parted else "same"
                for stream in STREAMS
            ]
            if "parameters" in comparison.parted:
                cells[-1] += f", by {_relative_difference(first, workdir):.1e}"
            rows.append((name, *cells, "yes" if as_promised else "NO"))
    terminal.table(
        f"{steps} steps compared with a first run", rows, header=("run", *STREAMS, "as promised")
    )
    if jax.device_count() > 1:
        terminal.line(
            "On another number of devices the loss and the parameters may differ by the order of sums."
        )
    terminal.line("as promised" if all_as_promised else "NOT as promised: see the table")
    return int(not all_as_promised)


def _run(command: list[str], workdir: Path, *, compiles: bool = False) -> None:
    """Runs a command; if it `compiles`, it reads no compiled programs."""
    without = {"JAX_ENABLE_COMPILATION_CACHE": "false"} if compiles else {}
    done = subprocess.run(
        [*command, f"--workdir={workdir}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **without},
    )
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise UserError(
            f"{shlex.join(command[1:])} ended with status {done.returncode}: "
            + reason.removeprefix("error: ")
        )


def _kill_at(command: list[str], workdir: Path, *, step: int) -> None:
    """Starts a run and kills it with SIGKILL once it has recorded `step`."""
    none = subprocess.DEVNULL
    process = subprocess.Popen(
        [*command, f"--workdir={workdir}"], stdin=none, stdout=none, stderr=none
    )
    try:
        while process.poll() is None:
            records = json_lines.read(workdir / FINGERPRINTS)
            if records and records[-1]["step"] >= step:
                break
            time.sleep(_POLL)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _relative_difference(one: Path, other: Path) -> float:
    """Returns ‖a − b‖ / ‖b‖ over all parameters of the latest checkpoints."""

    def parameters(workdir: Path) -> np.ndarray:
        state = checkpoints.read_latest(Workdir.open(workdir).checkpoints)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state["params"])])

    ours, theirs = parameters(one), parameters(other)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))

"""One run, killed thirty times and more, against the same run left in peace."""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny_run import ROOT, command, tiny_config

from fgr_jax.config import Config
from fgr_jax.files import json_lines

KILLS = 36
STEPS = 600
POLL = 0.001  # seconds


def frequent(data_dir: Path) -> Config:
    """A run that is nearly always saving or evaluating."""
    config = tiny_config(data_dir)
    config.duration = f"{STEPS} steps"
    config.checkpoint_every = "5 steps"
    config.evaluate_every = "1 epoch"
    config.runtime.fingerprint_every = "1 steps"
    return config


def start(config: Config, workdir: Path) -> subprocess.Popen:
    return subprocess.Popen(
        command(config, workdir), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_until(process: subprocess.Popen, moment: Callable[[], bool]) -> None:
    while process.poll() is None and not moment():
        time.sleep(POLL)


def has_more_fingerprints(workdir: Path) -> Callable[[], bool]:
    """Whether the run has come further than it had when this was asked for."""
    path = workdir / "fingerprints.jsonl"
    before = path.stat().st_size if path.exists() else 0
    return lambda: path.exists() and path.stat().st_size > before


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


def is_saving(workdir: Path) -> bool:
    return any(ocp.utils.TMP_DIR_SUFFIX in path.name for path in workdir.glob("checkpoints/*"))


def is_evaluating(workdir: Path) -> bool:
    """The training line of an epoch is written before its evaluation, the test line after it."""
    records = json_lines.read(workdir / "metrics.jsonl")
    return bool(records) and records[-1]["split"] == "train"


@pytest.mark.long
def test_killed_thirty_times_and_more_is_the_run_left_in_peace(
    data_dir: Path, tmp_path: Path
) -> None:
    config = frequent(data_dir)
    undisturbed, workdir = tmp_path / "undisturbed", tmp_path / "killed"
    with start(config, undisturbed) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output

    chance = random.Random(0)
    met: Counter[str] = Counter()
    for kill in range(KILLS):
        config.runtime.decode_threads = chance.choice([1, 2, 3])
        when = ("saving", "evaluating", "anywhere", "asked", "starting", "saving")[kill % 6]
        with start(config, workdir) as process:
            if when == "starting":
                time.sleep(chance.uniform(0, 8))
            else:
                wait_until(process, has_more_fingerprints(workdir))
                time.sleep(chance.uniform(0, 0.4))
            if when == "saving":
                wait_until(process, lambda: is_saving(workdir))
            if when == "evaluating":
                wait_until(process, lambda: is_evaluating(workdir))
            process.send_signal(signal.SIGTERM if when == "asked" else signal.SIGKILL)
            output = process.communicate(timeout=120)[0]
        expected = 128 + signal.SIGTERM if when == "asked" else -signal.SIGKILL
        assert process.returncode == expected, output
        met["saving"] += is_saving(workdir)
        met["evaluating"] += is_evaluating(workdir)
        met[f"{when} (wanted)"] += 1
        states = saved_states(workdir)  # none is unreadable
        assert states or kill < 6
        assert max(states, default=0) < STEPS
    print(f"steps taken before the last kill: {max(states)} of {STEPS}; found {dict(met)}")
    assert met["saving"] >= 5
    assert met["evaluating"] >= 3

    with start(config, workdir) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    for name in ("metrics.jsonl", "fingerprints.jsonl"):
        assert (workdir / name).read_bytes() == (undisturbed / name).read_bytes(), name
    records = json_lines.read(workdir / "metrics.jsonl")
    assert len({(record["step"], record["split"]) for record in records}) == len(records)
    assert [record["step"] for record in json_lines.read(workdir / "fingerprints.jsonl")] == list(
        range(1, STEPS + 1)
    )
    one, other = (saved_states(path)[STEPS] for path in (workdir, undisturbed))
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name

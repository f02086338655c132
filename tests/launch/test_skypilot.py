"""launch/sky_*.yaml as SkyPilot reads them, and what its nodes would run."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import ROOT, command, tiny_config

SKYPILOT = ROOT / ".venv-skypilot" / "bin" / "python"
READER = Path(__file__).parent / "read_task.py"
GPU, TPU = ROOT / "launch" / "sky_gpu.yaml", ROOT / "launch" / "sky_tpu.yaml"
ARGUMENTS = [
    "--config=configs/cub.py",
    "--config.duration=30 epochs",
    """--config.data.name=it's "odd" $HOME `x` \\ * ; & | < é $$(A)""",
]
_STAND_IN = """#!{python} -SE
import json, pathlib, signal, sys, time
folder = pathlib.Path({folder!r})
(folder / "called").write_text(json.dumps(sys.argv[1:]))
if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
    sys.exit("SIGTERM is ignored")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
(folder / "started").touch()
time.sleep(60)
"""


def _tasks(home: Path, arguments: list[str]) -> dict[Path, dict]:
    """The tasks of both files as read_task.py prints them; SkyPilot keeps its state in `home`."""
    assert SKYPILOT.exists(), f"no {SKYPILOT}: launch/test.sh installs SkyPilot there"
    done = subprocess.run(
        [SKYPILOT, READER, shlex.join(arguments), GPU, TPU],
        env=os.environ | {"HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout.splitlines()[-1])  # after messages of SkyPilot
    return {Path(path): task for path, task in tasks.items()}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict]:
    """The tasks of both files, with `ARGUMENTS`."""
    return _tasks(tmp_path_factory.mktemp("home"), ARGUMENTS)


class Node:
    """A node in a folder, with a program in place of its .venv/bin/python."""

    def __init__(self, folder: Path, python: str) -> None:
        self.folder = folder
        program = folder / "sky_workdir" / ".venv" / "bin" / "python"
        program.parent.mkdir(parents=True)
        program.write_text(python)
        program.chmod(0o755)

    def start(self, script: str, rank: int, addresses: list[str]) -> subprocess.Popen[str]:
        """Starts a task's script on the node, as SkyPilot does."""
        path = self.folder / "script"
        path.write_text(script)
        of_skypilot = {
            "HOME": str(self.folder),
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NODE_IPS": "\n".join(addresses),
            "SKYPILOT_NUM_NODES": str(len(addresses)),
        }
        return subprocess.Popen(
            ["/bin/bash", "-i", path],
            env=os.environ | of_skypilot,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_skypilot_reads_the_files(tasks: dict[Path, dict]) -> None:
    gpu, tpu = tasks[GPU], tasks[TPU]
    for task in (gpu, tpu):
        assert task["workdir"] == "."
        assert task["cloud"] == "GCP"
        assert task["use_spot"] is True
        # SkyPilot runs the commands of a single task on every host of a TPU slice.
        assert task["num_nodes"] == 1
    assert gpu["accelerators"] == {"H100": 8}
    assert tpu["accelerators"] == {"tpu-v6e-16": 1}
    assert '"jax[cuda12]"' in gpu["setup"]
    assert '"jax[tpu]"' in tpu["setup"]


@pytest.mark.parametrize("path", [GPU, TPU], ids=lambda path: path.stem)
def test_a_saved_run_starts_again_and_a_failed_one_does_not(
    tasks: dict[Path, dict], path: Path
) -> None:
    assert tasks[path]["starts_again_after"] == [[143], [143, 137]]


@pytest.mark.parametrize("path", [GPU, TPU], ids=lambda path: path.stem)
def test_skypilot_asks_for_the_arguments(tasks: dict[Path, dict], path: Path) -> None:
    assert "Environment variable 'ARGS' is None" in tasks[path]["error_without_arguments"]


@pytest.mark.parametrize("path", [GPU, TPU], ids=lambda path: path.stem)
def test_setup_is_a_shell_script_that_stops_at_an_error(
    tasks: dict[Path, dict], tmp_path: Path, path: Path
) -> None:
    (tmp_path / "uv").write_text('#!/bin/sh\necho "$@" >> called\n[ "$1" != venv ]\n')
    (tmp_path / "uv").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    words = ["bash", "-c", tasks[path]["setup"]]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "called").read_text() == "venv --python 3.12 .venv\n"


def test_every_node_runs_a_process_of_the_job(tasks: dict[Path, dict], tmp_path: Path) -> None:
    own = {
        GPU: ["--coordinator=10.0.0.2:8476", "--process_count=2", "--process_id=1"],
        TPU: ["--distributed"],
    }
    for path, flags in own.items():
        folder = tmp_path / path.stem
        node = Node(folder, _STAND_IN.format(python=sys.executable, folder=str(folder)))
        started = node.start(tasks[path]["script"], rank=1, addresses=["10.0.0.2", "10.0.0.7"])
        _wait_for(folder / "started", started)
        assert json.loads((folder / "called").read_text()) == [
            *("-m", "fgr_jax.main", *flags, *ARGUMENTS)
        ]
        started.send_signal(signal.SIGTERM)
        printed, _ = started.communicate(timeout=30)
        assert started.returncode == 143, printed


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2])
def test_nodes_train_save_and_resume(data_dir: Path, tmp_path: Path, count: int) -> None:
    """The nodes of launch/sky_gpu.yaml, all on this machine."""
    config = tiny_config(data_dir)
    config.duration = "20 epochs"
    config.evaluate_every = "10 epochs"
    workdir = tmp_path / "run"
    script = _tasks(tmp_path, command(config, workdir)[3:])[GPU]["script"]
    nodes = []
    for rank in range(count):
        node = Node(tmp_path / f"node{rank}", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (tmp_path / f"node{rank}" / "sky_workdir" / "fgr_jax").symlink_to(ROOT / "fgr_jax")
        nodes.append(node)

    def start() -> list[subprocess.Popen[str]]:
        addresses = ["127.0.0.1"] * count
        return [node.start(script, rank, addresses) for rank, node in enumerate(nodes)]

    started = start()
    _wait_for(workdir / "fingerprints.jsonl", started[0])
    started[-1].send_signal(signal.SIGTERM)  # to one of them
    printed = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [143] * count, printed
    assert "and saved" in printed[0]
    started = start()
    printed = [process.communicate(timeout=240)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, printed
    assert len((workdir / "provenance.jsonl").read_text().splitlines()) == 2

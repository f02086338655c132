"""launch/local.sh, with a stand-in for python, and once with real training."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_run import ROOT, command, tiny_config

from fgr_jax.runs.comparison import compare
from fgr_jax.runs.workdir import Workdir

# Arguments with characters that are special in a shell.
ODD = [
    "--config.duration=30 epochs",
    """--config.data.name=it's "odd" $HOME `x` \\ * ; & | < é $$(A)""",
]
_STAND_IN = """#!{python} -SE
import json, os, pathlib, signal, socket, sys, time
if sys.argv[1] == "-c":
    exec(sys.argv[2])
    sys.exit()
folder = pathlib.Path({folder!r})
index = next(a for a in sys.argv if a.startswith("--process_id=")).partition("=")[2]
what = json.loads((folder / "plan.json").read_text())[int(index)]
kept = {{name: os.environ.get(name) for name in ("JAX_PLATFORMS", "JAX_NUM_CPU_DEVICES")}}
(folder / f"called.{{index}}").write_text(json.dumps([sys.argv[1:], kept]))
if what == "saves":
    def save(number, frame):
        time.sleep(0.2)
        print("process", index, "saved", flush=True)
        sys.exit(143)
    signal.signal(signal.SIGTERM, save)
    signal.signal(signal.SIGINT, save)
elif isinstance(what, list):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(what[0]))
elif what == "ignores":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / f"pid.{{index}}").write_text(str(os.getpid()))
if isinstance(what, int):
    while len(list(folder.glob("pid.*"))) < {count}:
        time.sleep(0.02)
    sys.exit(what)
time.sleep(60)
"""


class Local:
    """launch/local.sh with a stand-in for python, which does what the plan says for its process."""

    def __init__(self, folder: Path, *plan: object) -> None:
        self.folder = folder
        self.python = folder / "python"
        self.python.write_text(
            _STAND_IN.format(python=sys.executable, folder=str(folder), count=len(plan))
        )
        self.python.chmod(0o755)
        (folder / "plan.json").write_text(json.dumps(plan))
        self.count = len(plan)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts it in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            ["bash", ROOT / "launch" / "local.sh", f"--processes={self.count}", *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHON": str(self.python)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def pid(self, index: int) -> int:
        """The id of a process, once it has started."""
        path = self.folder / f"pid.{index}"
        _wait_until(lambda: path.exists() and bool(path.read_text()))
        return int(path.read_text())


def _wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"


def test_every_process_is_told_which_one_it_is(tmp_path: Path) -> None:
    local = Local(tmp_path, 0, 0, 0)
    started = local.start("--devices=3", "--config=c.py", "--workdir=runs/a b", *ODD)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 0, errors
    coordinators = set()
    for index in range(3):
        called, environment = json.loads((tmp_path / f"called.{index}").read_text())
        coordinators.add(called.pop(2))
        assert called == [
            *("-m", "fgr_jax.main", "--process_count=3", f"--process_id={index}"),
            *("--config=c.py", "--workdir=runs/a b", *ODD),
        ]
        assert environment == {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "3"}
    [coordinator] = coordinators
    host, _, port = coordinator.partition(":")
    assert host == "--coordinator=localhost"
    assert 1024 <= int(port) < 65536


def test_two_processes_of_one_device_without_options(tmp_path: Path) -> None:
    Local(tmp_path, 0, 0)
    subprocess.run(
        ["bash", ROOT / "launch" / "local.sh"],
        env=os.environ | {"PYTHON": str(tmp_path / "python")},
        check=True,
        timeout=30,
    )
    called, environment = json.loads((tmp_path / "called.1").read_text())
    assert "--process_count=2" in called
    assert environment["JAX_NUM_CPU_DEVICES"] == "1"


def test_the_virtual_environment_of_the_project_is_used(tmp_path: Path) -> None:
    Local(tmp_path, 0, 0)
    project = tmp_path / "a project"
    for folder in ("launch", ".venv/bin"):
        (project / folder).mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "local.sh", project / "launch")
    (project / ".venv" / "bin" / "python3").symlink_to(tmp_path / "python")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    script = project / "launch" / "local.sh"
    subprocess.run(["bash", script], env=environment, check=True, timeout=30)
    assert (tmp_path / "called.1").exists()


def test_a_process_that_fails_is_named_and_the_others_are_ended(tmp_path: Path) -> None:
    local = Local(tmp_path, "ignores", "saves", 3)
    started = local.start()
    printed, errors = started.communicate(timeout=40)
    assert started.returncode == 3
    assert errors.splitlines() == ["error: process 2 ended with status 3"]
    assert printed == "process 1 saved\n"  # SIGTERM comes before SIGKILL
    _wait_until(lambda: _is_gone(local.pid(0)) and _is_gone(local.pid(1)))


def test_the_status_is_that_of_the_process_that_failed_first(tmp_path: Path) -> None:
    started = Local(tmp_path, [5], 3).start()
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 3
    assert errors.splitlines() == [
        "error: process 1 ended with status 3",
        "error: process 0 ended with status 5",
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_all_processes_save(
    tmp_path: Path, number: signal.Signals
) -> None:
    local = Local(tmp_path, "saves", "saves")
    started = local.start()
    for index in range(2):
        local.pid(index)
    time.sleep(0.5)  # until the script has set its traps
    os.killpg(started.pid, number)  # as a terminal does; the processes have groups of their own
    printed, errors = started.communicate(timeout=30)
    assert started.returncode == 143, errors
    assert sorted(printed.splitlines()) == ["process 0 saved", "process 1 saved"]
    assert "error:" not in errors


def test_nothing_is_left_behind_when_the_script_is_stopped_at_once(tmp_path: Path) -> None:
    local = Local(tmp_path, "ignores", "ignores")
    started = local.start()
    pids = [local.pid(index) for index in range(2)]
    started.send_signal(signal.SIGHUP)
    started.communicate(timeout=30)
    _wait_until(lambda: all(_is_gone(pid) for pid in pids))


@pytest.mark.parametrize(
    ("statuses", "outcome"), [((143, 0), 143), ((130, 143), 143), ((143, 1), 1), ((7, 143), 7)]
)
def test_the_status_is_the_failure_s_or_that_of_a_saved_run(
    tmp_path: Path, statuses: tuple[int, int], outcome: int
) -> None:
    assert Local(tmp_path, *statuses).start().wait(timeout=30) == outcome


@pytest.mark.long
def test_two_processes_train_like_one(data_dir: Path, tmp_path: Path) -> None:
    """Two processes see the same images and draw the same masks as a single one."""
    config = tiny_config(data_dir)
    config.duration = "6 steps"
    alone, together = tmp_path / "alone", tmp_path / "together"
    words = command(config, together, "--processes=2")
    environment = os.environ | {"PYTHON": sys.executable}
    started = subprocess.run(
        ["bash", ROOT / "launch" / "local.sh", *words[3:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    assert "results" in started.stdout
    assert (together / "metrics.jsonl").exists()
    environment |= {"JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(command(config, alone), cwd=ROOT, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    comparison = compare(Workdir.open(alone), Workdir.open(together))
    assert comparison.steps
    assert not {"images", "labels", "masks"} & comparison.parted.keys()

"""launch/slurm.sbatch with stand-ins for srun and scontrol."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_run import ROOT

ARGUMENTS = ["--config=c.py", "--workdir=runs/a b", """--config.data.name=it's "odd" $HOME ` * é"""]
_STAND_IN = """#!{python} -SE
import json, os, pathlib, signal, sys, time
folder, name = pathlib.Path({folder!r}), pathlib.Path(sys.argv[0]).name
(folder / f"{{name}}.called").write_text(json.dumps(sys.argv[1:]))
(folder / f"{{name}}.path").write_text(os.environ["PATH"])
status = json.loads((folder / "plan.json").read_text())[name]
if isinstance(status, int):
    sys.exit(status)
def stop(number, frame):
    time.sleep(0.3)
    sys.exit(status[0])
signal.signal(signal.SIGTERM, stop)
(folder / "started").touch()
time.sleep(60)
"""


class Slurm:
    """A job in a folder, whose srun and scontrol end with the given statuses.

    A status in a list is that after SIGTERM, for which srun then waits.
    """

    def __init__(self, folder: Path, srun: int | list[int], scontrol: int = 0) -> None:
        self.folder = folder
        self.project = folder / "a project"
        (self.project / "fgr_jax").mkdir(parents=True)
        (self.project / "fgr_jax" / "main.py").touch()
        (folder / "bin").mkdir()
        for name in ("srun", "scontrol"):
            program = folder / "bin" / name
            program.write_text(_STAND_IN.format(python=sys.executable, folder=str(folder)))
            program.chmod(0o755)
        (folder / "plan.json").write_text(json.dumps({"srun": srun, "scontrol": scontrol}))
        # Slurm runs a copy of the script from a folder of its own.
        self.script = folder / "slurm_script"
        shutil.copy(ROOT / "launch" / "slurm.sbatch", self.script)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        """Starts the script as Slurm does."""
        of_slurm = {
            "SLURM_JOB_ID": "42",
            "SLURM_SUBMIT_DIR": str(self.project),
            "SLURM_CPUS_PER_TASK": "6",
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
        }
        return subprocess.Popen(
            ["bash", self.script, *ARGUMENTS],
            cwd=self.folder,
            env=os.environ | of_slurm | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def called(self, name: str) -> list[str] | None:
        """The arguments of a program, or None where it was not called."""
        path = self.folder / f"{name}.called"
        return json.loads(path.read_text()) if path.exists() else None


def test_arguments_are_passed_on(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path, srun=0)
    job = slurm.start(PYTHON="/some/python")
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 0, errors
    assert slurm.called("srun") == [
        *("--cpus-per-task=6", "--kill-on-bad-exit=0", "--wait=60"),
        *("/some/python", "-m", "fgr_jax.main", "--distributed", *ARGUMENTS),
    ]
    assert slurm.called("scontrol") is None


def test_the_virtual_environment_of_the_project_is_used(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path, srun=0)
    assert slurm.start(PYTHON="").wait(timeout=30) == 0
    called = slurm.called("srun")
    assert called is not None
    assert called[called.index("-m") - 1] == "python3"
    first = (tmp_path / "srun.path").read_text().partition(":")[0]
    assert first == f"{slurm.project}/.venv/bin"


@pytest.mark.parametrize(("status", "is_requeued"), [(143, True), (1, False), (137, False)])
def test_the_job_is_requeued_after_143_alone(
    tmp_path: Path, status: int, is_requeued: bool
) -> None:
    slurm = Slurm(tmp_path, srun=status)
    job = slurm.start()
    _, errors = job.communicate(timeout=30)
    assert job.returncode == (0 if is_requeued else status)
    assert slurm.called("scontrol") == (["requeue", "42"] if is_requeued else None)
    if not is_requeued:
        assert f"error: srun ended with status {status}; job 42 is not requeued" in errors


def test_a_job_that_cannot_be_requeued_fails(tmp_path: Path) -> None:
    job = Slurm(tmp_path, srun=143, scontrol=1).start()
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 1
    assert "error: scontrol requeue 42 failed; submit the same command again" in errors


@pytest.mark.parametrize("status", [143, 1])
def test_sigterm_is_passed_on_and_the_script_waits(tmp_path: Path, status: int) -> None:
    slurm = Slurm(tmp_path, srun=[status])
    job = slurm.start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == (0 if status == 143 else status), errors
    assert slurm.called("scontrol") == (["requeue", "42"] if status == 143 else None)


def test_a_job_from_another_folder_is_refused(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path, srun=0)
    job = slurm.start(SLURM_SUBMIT_DIR=str(tmp_path))
    _, errors = job.communicate(timeout=30)
    assert job.returncode == 1
    assert errors == f"error: {tmp_path}: is not the root of the project; submit it from there\n"
    assert slurm.called("srun") is None


def test_without_sbatch_the_script_says_how_to_submit_it(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    script = ROOT / "launch" / "slurm.sbatch"
    done = subprocess.run(
        ["bash", script], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "submit this file with sbatch" in done.stderr

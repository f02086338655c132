"""launch/slurm.sbatch on a Slurm cluster of one node, this machine, which the tests start and stop."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from several_processes import free_port
from tiny_run import ROOT, command, tiny_config

from fgr_jax.config import Config

pytestmark = pytest.mark.long

PROGRAMS = [
    *("munged", "mungekey", "slurmctld", "slurmd"),
    *("sbatch", "srun", "scancel", "scontrol", "squeue"),
]
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}/socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=5
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def _install() -> None:
    """Installs Slurm and munge where they are missing, as root on Debian; else says what is missing."""

    def missing() -> list[str]:
        return [name for name in PROGRAMS if shutil.which(name, path=SEARCH_PATH) is None]

    if missing() and os.getuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=True)
        packages = ["--no-install-recommends", "slurm-wlm", "munge"]
        subprocess.run(["apt-get", "install", "-qq", *packages], check=True)
    if missing():
        pytest.fail(f"no {', '.join(missing())}: install slurm-wlm and munge (apt-get, as root)")
    if os.getuid() != 0:
        pytest.fail("slurmctld, slurmd and munged are started by root: run this test as root")


def _wait_until(what: str, true: Callable[[], bool], *, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


class Cluster:
    """A Slurm cluster of this machine with two CPUs, whose files are in a folder."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": SEARCH_PATH,
            "PYTHON": sys.executable,
            "JAX_NUM_CPU_DEVICES": "1",
        }

    def start(self) -> None:
        """Starts the daemons and waits for the node."""
        host = socket.gethostname().partition(".")[0]
        munge = self._folder / "munge"  # which munged wants for itself
        munge.mkdir()
        subprocess.run(
            ["mungekey", "--create", f"--keyfile={munge}/key"], env=self.environment, check=True
        )
        for path in (munge, munge / "key"):
            shutil.chown(path, "munge", "munge")
        for name in ("state", "spool"):
            (self._folder / name).mkdir()
        (self._folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                host=host,
                folder=self._folder,
                munge=munge,
                controller_port=free_port(),
                node_port=free_port(),
            )
        )
        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "seed-file": "seed"}
        options = [f"--{option}={munge}/{name}" for option, name in files.items()]
        self._start("munged", "--foreground", *options, user="munge")
        _wait_until("munged listens", (munge / "socket").exists, seconds=20)
        self._start("slurmctld", "-D")
        self._start("slurmd", "-D", "-N", host)
        _wait_until("the node is idle", lambda: "State=IDLE" in self._node(host), seconds=60)

    def stop(self) -> None:
        """Ends all jobs and daemons."""
        self.run("scancel", "--user=root", check=False)
        with contextlib.suppress(AssertionError):
            _wait_until("no job is left", lambda: not self.run("squeue", "--noheader"), seconds=60)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *words: str, check: bool = True) -> str:
        """Runs one of Slurm's commands in the root of the project; returns what it prints."""
        done = subprocess.run(
            words, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout

    def submit(self, log: Path, config: Config, workdir: Path, *more: str) -> str:
        """Submits a training of two tasks; returns the id of the job."""
        options = ["--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1"]
        arguments = [*command(config, workdir)[3:], *more]
        script = "launch/slurm.sbatch"
        printed = self.run("sbatch", "--parsable", f"--output={log}", *options, script, *arguments)
        return printed.strip()

    def job(self, job: str) -> dict[str, str]:
        """What Slurm knows about a job."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", job)))

    def wait_for(self, job: str, log: Path) -> dict[str, str]:
        """Waits until a job has ended, for good; returns what Slurm knows about it."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT")
        try:
            _wait_until(f"job {job} ends", lambda: self.job(job)["JobState"] in ended, seconds=600)
        except AssertionError:
            text = log.read_text() if log.exists() else "no log"
            pytest.fail(f"job {job} does not end: {self.job(job)}\n{text}")
        return self.job(job)

    def _node(self, name: str) -> str:
        return self.run("scontrol", "show", "node", name, check=False)

    def _start(self, *words: str, user: str | None = None) -> None:
        with (self._folder / f"{words[0]}.out").open("wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    words, env=self.environment, stdout=out, stderr=subprocess.STDOUT, user=user
                )
            )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster that accepts jobs."""
    _install()
    # Not in pytest's folder, which only its owner can enter: munged runs as a user of its own.
    with tempfile.TemporaryDirectory(prefix="slurm") as name:
        folder = Path(name)
        folder.chmod(0o755)
        cluster = Cluster(folder)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def _config(data_dir: Path) -> Config:
    config = tiny_config(data_dir)
    config.duration = "20 epochs"
    config.evaluate_every = config.checkpoint_every = "10 epochs"
    return config


def test_a_job_saves_is_requeued_and_ends_like_an_undisturbed_one(
    cluster: Cluster, data_dir: Path, tmp_path: Path
) -> None:
    config = _config(data_dir)
    disturbed, undisturbed = tmp_path / "disturbed", tmp_path / "undisturbed"
    log = tmp_path / "disturbed.log"
    job = cluster.submit(log, config, disturbed)
    fingerprints = disturbed / "fingerprints.jsonl"
    _wait_until("the run trains", lambda: fingerprints.exists() and fingerprints.read_text() != "")
    cluster.run("scancel", "--signal=TERM", job)
    _wait_until("the job is requeued", lambda: cluster.job(job)["Restarts"] == "1")
    first = log.read_text()
    assert re.search(r"stopped after step [\d,]+ of 130 and saved", first), first
    assert re.search(r"srun: error: \S+: tasks 0-1: Exited with exit code 143", first), first
    assert f"saved; job {job} is requeued" in first

    ended = cluster.wait_for(job, log)
    assert ended["JobState"] == "COMPLETED", log.read_text()
    assert ended["ExitCode"] == "0:0"
    assert ended["Restarts"] == "1"
    assert len((disturbed / "provenance.jsonl").read_text().splitlines()) == 2

    log = tmp_path / "undisturbed.log"
    job = cluster.submit(log, config, undisturbed)
    ended = cluster.wait_for(job, log)
    assert ended["JobState"] == "COMPLETED", log.read_text()
    assert ended["Restarts"] == "0"
    metrics = (undisturbed / "metrics.jsonl").read_bytes()
    assert metrics
    assert (disturbed / "metrics.jsonl").read_bytes() == metrics


def test_a_job_that_fails_is_not_requeued(cluster: Cluster, data_dir: Path, tmp_path: Path) -> None:
    log = tmp_path / "failing.log"
    job = cluster.submit(log, _config(data_dir), tmp_path / "run", "--config.batch_size=0")
    ended = cluster.wait_for(job, log)
    assert ended["JobState"] == "FAILED", log.read_text()
    assert ended["ExitCode"] == "1:0"
    assert ended["Restarts"] == "0"
    assert f"error: srun ended with status 1; job {job} is not requeued" in log.read_text()

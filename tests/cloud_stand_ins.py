"""Stand-ins for gcloud, kubectl, srun and the rest, which note what they are asked and play a scenario.

`StandIns(folder)` writes programs of these names into `folder/bin`; each of them calls `main` below.
They are started by the hundred, so they do without site-packages, and import what is slow only where it
is used. Workers of a TPU VM are folders: a command sent to
one is run there by bash, so that a mistake in quoting shows. `scenario.json` is the cloud's state:

- state: of the machines, or "GONE"; queue: the next states of a queued resource, then "ACTIVE"
- create: for each request to come, an error text, or "" for success
- workers: how many
- training: for each start to come, what every worker does: an exit status, or "sleep", "slow" (status
  0 after a second), "late" (status 9 after a while), "preempt" (the machines are taken away after a
  while). After a status of 134 has been seen, they are taken away too.
- srun, scontrol, kubectl: exit statuses to come; 0 where the list is empty
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = ("gcloud", "kubectl", "srun", "scontrol")
_UNREACHABLE = 255
# What is the same in every scenario needs no Python.
_WORKER_PYTHON = """case "$1 $2" in
  "-c import ensurepip") exit 0 ;;
  "-m venv") mkdir -p "$3/bin" && exec ln -s {itself} "$3/bin/python" ;;
esac
"""


class StandIns:
    """The programs, the scenario that they play, and what they were asked."""

    def __init__(self, folder: Path, **scenario: object) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        for name in _PROGRAMS:
            _write_program(self.bin / name)
        _write_program(folder / "worker_bin" / "gcloud")
        _write_program(folder / "worker_bin" / "curl", 'echo "$WORKER" && exit\n')
        python = folder / "worker_bin" / "python3.12"
        _write_program(python, _WORKER_PYTHON.format(itself=python))
        self.set(state="GONE", queue=[], create=[], workers=2, training=[])
        self.set(srun=[], scontrol=[], kubectl=[], **scenario)

    def set(self, **changes: object) -> None:
        """Changes the scenario."""
        _change(self.folder, **changes)

    @property
    def environment(self) -> dict[str, str]:
        """That of a launcher which is to find the stand-ins."""
        return os.environ | {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "STAND_INS": str(self.folder),
        }

    def calls(self, program: str, *words: str) -> list[list[str]]:
        """The arguments of every call of `program` that hold all of `words`, in order."""
        found = [call for name, call in self.all_calls() if name == program]
        return [call for call in found if all(word in call for word in words)]

    def all_calls(self) -> list[tuple[str, list[str]]]:
        """Program and arguments of every call, in order."""
        path = self.folder / "calls.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(name, call) for name, call in map(json.loads, lines)]

    def trainings(self, worker: int) -> list[list[str]]:
        """The arguments of every start of fgr_jax.main on a worker."""
        calls = self.calls(f"python of worker {worker}", "fgr_jax.main")
        return [call[call.index("fgr_jax.main") + 1 :] for call in calls]

    def home(self, worker: int) -> Path:
        """The home folder of a worker."""
        return self.folder / "workers" / str(worker)

    def end_trainings(self) -> None:
        """Ends what "sleep" has left behind."""
        import subprocess

        for path in self.folder.glob("workers/*/fgr_jax_launch/pid"):
            subprocess.run(
                ["kill", "-KILL", "--", f"-{path.read_text().strip()}"], stderr=subprocess.DEVNULL
            )


def _write_program(path: Path, first: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    call = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import cloud_stand_ins"
    call += f"; sys.exit(cloud_stand_ins.main({path.name!r}, sys.argv[1:]))"
    python = f'exec {sys.executable} -S -E -c "{call}" "$@"'
    path.write_text(f"#!/bin/sh\n{first}{python}\n")
    path.chmod(0o755)


def _scenario(folder: Path) -> dict:
    path = folder / "scenario.json"
    return json.loads(path.read_text()) if path.exists() else {}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While open, no other program changes the scenario."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _store(folder: Path, scenario: dict) -> None:
    new = folder / f"scenario.{os.getpid()}"
    new.write_text(json.dumps(scenario))
    new.rename(folder / "scenario.json")


def _change(folder: Path, **changes: object) -> None:
    with _alone(folder):
        _store(folder, _scenario(folder) | changes)


def _note(folder: Path, program: str, arguments: list[str]) -> None:
    with (folder / "calls.jsonl").open("a") as file:
        file.write(json.dumps([program, arguments]) + "\n")


def _next(folder: Path, name: str, otherwise: object) -> object:
    """Takes the first of a list of the scenario."""
    with _alone(folder):
        scenario = _scenario(folder)
        listed = scenario[name]
        if not listed:
            return otherwise
        _store(folder, scenario | {name: listed[1:]})
        return listed[0]


def main(program: str, arguments: list[str]) -> int:
    """Plays `program`; returns its exit status."""
    folder = Path(os.environ["STAND_INS"])
    worker = os.environ.get("WORKER")
    if program.startswith("python"):
        _note(folder, f"python of worker {worker}", arguments)
        return _worker_python(folder, int(worker or 0), arguments)
    _note(folder, program, arguments)
    if program == "gcloud":
        return _gcloud(folder, arguments)
    if program == "kubectl" and "--filename=-" in arguments:
        (folder / "applied.yaml").write_text(sys.stdin.read())
    status = _next(folder, program, 0)
    if status:
        print(f"{program}: the stand-in's error", file=sys.stderr)
    assert isinstance(status, int)
    return status


def _gcloud(folder: Path, arguments: list[str]) -> int:
    positional = [word for word in arguments if not word.startswith("--")]
    options = dict(word.partition("=")[::2] for word in arguments if word.startswith("--"))
    if positional[0] == "storage":
        return _storage(positional[1], positional[2:])
    what, verb = positional[2:4]
    scenario = _scenario(folder)
    if verb == "create":
        if error := _next(folder, "create", ""):
            print(f"ERROR: (gcloud.compute.tpus.tpu-vm.create) {error}", file=sys.stderr)
            return 1
        import shutil

        shutil.rmtree(folder / "workers", ignore_errors=True)
        for worker in range(scenario["workers"]):
            (folder / "workers" / str(worker)).mkdir(parents=True)
        _change(folder, state="READY")
        return 0
    if scenario["state"] == "GONE":
        print("ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource not found", file=sys.stderr)
        return 1
    if verb == "describe":
        queued = what == "queued-resources"
        print(_next(folder, "queue", "ACTIVE") if queued else scenario["state"])
        return 0
    if verb == "delete":
        _change(folder, state="GONE")
        return 0
    if scenario["state"] != "READY":
        print("ERROR: ssh: connection refused", file=sys.stderr)
        return _UNREACHABLE
    chosen = options.get("--worker", "0")
    workers = range(scenario["workers"]) if chosen == "all" else [int(chosen)]
    homes = [folder / "workers" / str(worker) for worker in workers]
    if verb == "scp":
        return _scp(positional[4], positional[5], homes)
    import subprocess

    # As gcloud and ssh do: cut at the spaces, put together again, and read by the worker's shell.
    command = " ".join(options["--command"].split(" "))
    statuses = [
        subprocess.run(
            ["bash", "-c", command],
            cwd=home,
            env=os.environ
            | {
                "HOME": str(home),
                "WORKER": home.name,
                "PATH": f"{folder / 'worker_bin'}:{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
        ).returncode
        for home in homes
    ]
    if any(
        path.read_text().startswith("134 ")
        for path in folder.glob("workers/*/fgr_jax_launch/status")
    ):
        _change(folder, state="PREEMPTED")
    return next((status for status in statuses if status), 0)


def _scp(source: str, target: str, homes: list[Path]) -> int:
    import shutil

    for home in homes:
        if ":" in target:
            shutil.copy(source, home / target.partition(":")[2])
        else:
            found = home / source.partition(":")[2]
            shutil.copytree(found, Path(target) / found.name)
    return 0


def _storage(verb: str, positional: list[str]) -> int:
    if verb == "du":
        print(f"{os.environ.get('BUCKET_BYTES', 4096)} {positional[0]}")
    else:
        (Path(positional[1]) / "copied_from_bucket").write_text(positional[0])
    return 0


def _worker_python(folder: Path, worker: int, arguments: list[str]) -> int:
    import time

    if "fgr_jax.main" not in arguments:
        return 0
    plan = _scenario(folder)["training"]
    # Which start of this worker it is: one more than those noted before.
    noted = (folder / "calls.jsonl").read_text().splitlines()
    name = f"python of worker {worker}"
    start = sum(call[0] == name and "fgr_jax.main" in call[1] for call in map(json.loads, noted))
    ends = plan[start - 1][worker] if start <= len(plan) else 0
    print(f"start {start} on worker {worker}: {'trains' if ends == 0 else ends}", flush=True)
    if ends == "sleep":
        time.sleep(60)
    elif ends == "slow":
        time.sleep(1)
        return 0
    elif ends == "late":
        time.sleep(0.2)
        return 9
    elif ends == "preempt":
        time.sleep(0.5)
        _change(folder, state="PREEMPTED")
        time.sleep(5)
    return ends if isinstance(ends, int) else 1

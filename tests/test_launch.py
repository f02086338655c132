"""The launchers, driven with stand-ins for the clouds' programs; see cloud_stand_ins.py."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from cloud_stand_ins import StandIns
from tiny_run import ROOT, command, tiny_config

from fgr_jax.runs.comparison import compare
from fgr_jax.runs.folder import RunFolder

SCRIPTS = sorted([*ROOT.glob("launch/*.sh"), *ROOT.glob("launch/*.sbatch")])
LAUNCHERS = ["tpu_vm.sh", "slurm.sbatch", "gke.sh", "local.sh"]
# What a shell may stumble over, in arguments that a person may well type.
ODD = [
    "--config.duration=30 epochs",
    """--config.data.name=it's "odd" $HOME `x` \\ * ; & | < é $$(A)""",
]
CONFIG = "--config=configs/cub.py"
WORKDIR = "--workdir=gs://b/runs/cub"
JAX = "0.10.2"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with the launchers and next to nothing else."""
    folder = tmp_path_factory.mktemp("checkout") / "a project"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "fgr_jax").mkdir()
    (folder / "configs").mkdir()
    for empty in ("fgr_jax/main.py", "configs/cub.py", "configs/untracked.py", "a file"):
        (folder / empty).touch()
    (folder / "requirements.txt").write_text(f"# needs gcsfs==1.2.3.\nnumpy==1\njax=={JAX}\n")
    subprocess.run(["git", "init", "--quiet", "--template="], cwd=folder, check=True)
    subprocess.run(["git", "add", "."], cwd=folder, check=True)
    subprocess.run(
        ["git", "rm", "--quiet", "--cached", "configs/untracked.py"], cwd=folder, check=True
    )
    return folder


@pytest.fixture
def project(checkout: Path, tmp_path: Path) -> Path:
    """A checkout to be changed."""
    return Path(shutil.copytree(checkout, tmp_path / checkout.name))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[StandIns]:
    """A cloud without machines; two workers come with a VM."""
    stand_ins = StandIns(tmp_path / "cloud")
    yield stand_ins
    stand_ins.end_trainings()


Launch = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def launch(project: Path, cloud: StandIns) -> Launch:
    """Runs a launcher to its end."""

    def to_the_end(
        script: str, *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", f"launch/{script}", *arguments],
            cwd=project,
            env=cloud.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )

    return to_the_end


IN_BUCKET = "--config.data.data_dir=gs://b/tfds"  # then there is nothing to be done for the data
DATA = "--data=gs://b/tfds"


def tpu_run(*more: str) -> list[str]:
    """The arguments of a whole run."""
    return [
        *("run", "--zone=z-a", "--type=v5litepod-16", CONFIG, WORKDIR),
        *(more if DATA in more else (IN_BUCKET, *more)),
        *("--poll-seconds=0.1", "--capacity-wait=0.01"),
    ]


def verbs(cloud: StandIns) -> list[str]:
    """What gcloud was asked to do with the machines, without the looks at them."""
    asked = [call[3] for call in cloud.calls("gcloud") if call[:2] == ["compute", "tpus"]]
    return [verb for verb in asked if verb not in ("describe", "ssh")]


def one_error(done: subprocess.CompletedProcess[str]) -> str:
    """The one error line of a launcher that gave up."""
    assert done.returncode == 1, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, done.stderr
    return errors[0]


# --- all launchers ---


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    program = Path(sys.executable).parent / "shellcheck"
    checked = subprocess.run(
        [program, "--shell=bash", "--external-sources", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "shellcheck disable" not in script.read_text()


@pytest.mark.parametrize("script", LAUNCHERS)
def test_help_begins_with_what_it_is_for(launch: Launch, script: str) -> None:
    done = launch(script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Trains on" if script != "local.sh" else "Starts several")
    assert "set -e" not in done.stdout
    assert f"launch/{script}" in done.stdout
    assert "Exit status" in done.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        ("tpu_vm.sh", [], "no command: one of create setup data train"),
        ("tpu_vm.sh", ["crate"], "crate: no such command; one of create"),
        (
            "tpu_vm.sh",
            ["create", "--tpye=v4-8"],
            "--tpye: no such option here; did you mean --type?",
        ),
        ("tpu_vm.sh", ["delete", "--zone=z", "--spot"], "--spot: no such option here"),
        ("tpu_vm.sh", ["create", "--zone", "z-a"], "--zone: needs a value, as --zone=VALUE"),
        ("tpu_vm.sh", ["create", "--type=v4-8"], "no zone: name one"),
        ("tpu_vm.sh", ["create", "--zone=z-a"], "no type: name one"),
        (
            "tpu_vm.sh",
            ["create", "--zone=z-a", "--type=v9-8"],
            "--type=v9-8: give --runtime-version",
        ),
        ("tpu_vm.sh", ["create", "--zone=z-a", "--type=big"], "--type=big: is no accelerator type"),
        ("tpu_vm.sh", ["status", "--zone=z-a", "--name=A B"], "--name=A B: must be lower-case"),
        ("tpu_vm.sh", ["train", "--zone=z-a", WORKDIR], "no config: name one"),
        ("tpu_vm.sh", ["train", "--zone=z-a", CONFIG], "no workdir: name one"),
        (
            "tpu_vm.sh",
            ["train", "--zone=z-a", WORKDIR, "--config=no.py"],
            "--config=no.py: no such file",
        ),
        (
            "tpu_vm.sh",
            ["train", "--zone=z-a", WORKDIR, "--config=configs/untracked.py"],
            "--config=configs/untracked.py: git does not track it",
        ),
        ("tpu_vm.sh", tpu_run("--data=here"), "--data=here: must be gs://BUCKET/FOLDER"),
        ("tpu_vm.sh", tpu_run(DATA, "--source=x"), "--data=gs://b/tfds: is prepared already"),
        (
            "tpu_vm.sh",
            tpu_run(IN_BUCKET, DATA),
            "--data=gs://b/tfds: leave it out",
        ),
        (
            "tpu_vm.sh",
            tpu_run("--spot", "--workdir=runs/x"),
            "is lost when spot machines are taken",
        ),
        ("tpu_vm.sh", tpu_run("--workdir=runs/x"), "v5litepod-16 has 4 workers, and all must see"),
        ("tpu_vm.sh", [*tpu_run(), "--poll-seconds=soon"], "--poll-seconds=soon: must be a number"),
        ("tpu_vm.sh", tpu_run("--max-restarts=-1"), "--max-restarts=-1: must be a whole number"),
        ("slurm.sbatch", [CONFIG], "not in a Slurm job: submit with sbatch"),
        ("slurm.sbatch", ["--dry-run"], "no config: name one"),
        ("slurm.sbatch", ["--wrkdir=x"], "did you mean --workdir?"),
        ("slurm.sbatch", ["--process_id=1", CONFIG], "--process_id: is left to Slurm"),
        ("gke.sh", [], "no command: one of apply follow status delete"),
        ("gke.sh", ["apply", "--imege=x"], "did you mean --image?"),
        ("gke.sh", ["delete", "--hosts=2"], "--hosts: no such option here"),
        ("gke.sh", ["delete", "--name=Run"], "--name=Run: must be lower-case"),
        ("local.sh", [], "no config: name one"),
        ("local.sh", [CONFIG, "--proceses=2"], "did you mean --processes?"),
        ("local.sh", [CONFIG, "--processes=0"], "--processes=0: must be 1 or more"),
        ("local.sh", [CONFIG, "--processes=two"], "--processes=two: must be a whole number"),
        ("local.sh", [CONFIG, "--gpus", "--devices=2"], "--devices=2: is for CPUs"),
        ("local.sh", [CONFIG, "--distributed"], "--distributed: is set by this script"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_done(
    launch: Launch, cloud: StandIns, script: str, arguments: list[str], said: str
) -> None:
    done = launch(script, *arguments)
    assert said in one_error(done)
    assert done.stdout == ""
    assert cloud.all_calls() == []


GKE = ["--image=r/fgr", "--tpu=tpu-v6e-slice", "--topology=4x4", "--hosts=4", "--chips=4"]
BUCKETS = [WORKDIR, IN_BUCKET]


@pytest.mark.parametrize(
    "arguments",
    [
        ["tpu_vm.sh", *tpu_run(DATA, "--delete-after", "--spot")],
        ["tpu_vm.sh", "create", "--zone=z-a", "--type=v4-8", "--queued"],
        ["tpu_vm.sh", "setup", "--zone=z-a"],
        ["tpu_vm.sh", "data", "--zone=z-a", CONFIG],
        ["tpu_vm.sh", "train", "--zone=z-a", CONFIG, WORKDIR],
        ["tpu_vm.sh", "follow", "--zone=z-a"],
        ["tpu_vm.sh", "status", "--zone=z-a"],
        ["tpu_vm.sh", "fetch", "--zone=z-a", "--workdir=runs/x"],
        ["tpu_vm.sh", "delete", "--zone=z-a"],
        ["slurm.sbatch", CONFIG],
        ["gke.sh", "apply", *GKE, CONFIG, *BUCKETS],
        ["gke.sh", "follow"],
        ["gke.sh", "status"],
        ["gke.sh", "delete"],
        ["local.sh", CONFIG, "--processes=3"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_a_dry_run_runs_nothing(
    launch: Launch, cloud: StandIns, project: Path, arguments: list[str]
) -> None:
    before = sorted(project.rglob("*"))
    done = launch(*arguments, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr
    assert done.stdout
    for line in done.stdout.splitlines():
        shlex.split(line)
    assert cloud.all_calls() == []
    assert sorted(project.rglob("*")) == before


# --- tpu_vm.sh ---


def test_a_run_from_nothing_to_nothing(launch: Launch, cloud: StandIns) -> None:
    done = launch("tpu_vm.sh", *tpu_run(DATA, "--spot", "--delete-after", "--join_timeout=9", *ODD))
    assert done.returncode == 0, done.stderr
    assert verbs(cloud) == ["create", "scp", "delete"]
    made = cloud.calls("gcloud", "create")[0]
    assert made[3:5] == ["create", "fgr-jax"]
    assert {"--spot", "--zone=z-a", "--quiet"} < set(made)
    assert {"--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite"} < set(made)
    for worker in (0, 1):
        ours = cloud.home(worker) / "fgr_jax_launch"
        assert cloud.trainings(worker) == [
            [
                *("--distributed", CONFIG, *ODD, f"--config.data.data_dir={ours}/data"),
                *(WORKDIR, "--join_timeout=9"),
            ]
        ]
        assert (ours / "code" / "a file").exists()
        assert not (ours / "code" / "configs" / "untracked.py").exists()
        assert (ours / "data" / "copied_from_bucket").read_text() == "gs://b/tfds"
        [pip] = cloud.calls(f"python of worker {worker}", "pip")
        assert pip[-3:] == ["code/requirements.txt", f"jax[tpu]=={JAX}", "gcsfs==1.2.3"]
    assert done.stdout.count("start 1 on worker 0: trains") == 1
    assert "finished: gs://b/runs/cub" in done.stderr
    assert "about $19.2 an hour" in done.stderr
    assert "bash launch/tpu_vm.sh delete --name=fgr-jax --zone=z-a" in done.stderr


def test_a_dry_run_prints_what_is_run(launch: Launch, cloud: StandIns) -> None:
    arguments = tpu_run(DATA, "--spot", "--delete-after", *ODD)
    printed = launch("tpu_vm.sh", *arguments, "--dry-run").stdout.splitlines()
    promised = [shlex.split(line) for line in printed]
    assert launch("tpu_vm.sh", *arguments).returncode == 0
    run = [["gcloud", *call] for call in cloud.calls("gcloud", "compute") if "describe" not in call]
    unpromised = [call for call in run if call not in promised]
    assert [call for call in unpromised if "tail -c" not in " ".join(call)] == []
    gcloud = [words for words in promised if words[0] == "gcloud"]
    assert [words for words in gcloud if words not in run] == []
    order = [run.index(words) for words in gcloud]
    assert [words[0] for words in promised if words[0] != "gcloud"] == ["mkdir"]
    # The worker's log is looked at before, and so is whether a run goes on already.
    steps = [index for index, words in zip(order, gcloud, strict=True) if "tail" not in str(words)]
    steps = [index for index in steps if "vanished" not in " ".join(run[index])]
    assert steps == sorted(steps)
    assert len(steps) == 6


NO_ROOM = 'There is no more capacity in the zone "z-a"; you can try in another zone'


def test_a_quota_is_explained_and_not_asked_again(launch: Launch, cloud: StandIns) -> None:
    cloud.set(create=["RESOURCE_EXHAUSTED: Quota limit 'TPUV5s' has been exceeded. Limit: 0"])
    error = one_error(launch("tpu_vm.sh", *tpu_run()))
    assert "quota does not allow it in z-a: ask for more" in error
    assert "another --zone or --type" in error
    assert verbs(cloud) == ["create"]


@pytest.mark.parametrize(
    ("script", "arguments", "said"),
    [
        # Two cores a chip up to v5p, but for v5litepod.
        ("tpu_vm.sh", ["create", "--zone=z-a", "--type=v4-32"], "about $51.5 an hour on demand"),
        ("tpu_vm.sh", ["create", "--zone=z-a", "--type=v6e-8"], "about $21.6 an hour on demand"),
        (
            "tpu_vm.sh",
            ["create", "--zone=z-a", "--type=v9-8", "--runtime-version=v"],
            "what the price list says",
        ),
        ("gke.sh", ["apply", *GKE, CONFIG, *BUCKETS], "about $43.2 an hour on demand"),
        (
            "gke.sh",
            ["apply", "--image=i", "--gpu=g", "--chips=1", CONFIG, *BUCKETS],
            "what the price list says",
        ),
    ],
)
def test_what_it_costs_is_said_with_the_way_to_end_it(
    launch: Launch, script: str, arguments: list[str], said: str
) -> None:
    done = launch(script, *arguments, "--dry-run")
    assert said in done.stderr
    way_out = "kubectl delete jobset" if script == "gke.sh" else "bash launch/tpu_vm.sh delete"
    assert way_out in done.stderr


def test_no_capacity_is_an_error_of_create(launch: Launch, cloud: StandIns) -> None:
    cloud.set(create=[NO_ROOM])
    error = one_error(launch("tpu_vm.sh", "create", "--zone=z-a", "--type=v6e-8"))
    assert "z-a has no room for v6e-8 now: take another --zone, --spot, or wait" in error
    assert verbs(cloud) == ["create"]


def test_no_capacity_and_then_there_is(launch: Launch, cloud: StandIns) -> None:
    cloud.set(create=[NO_ROOM, NO_ROOM])
    done = launch("tpu_vm.sh", *tpu_run("--capacity-tries=3"))
    assert done.returncode == 0, done.stderr
    assert verbs(cloud) == ["create", "create", "create", "scp"]
    assert "asking again in 0.01 s (try 3 of 3)" in done.stderr
    assert "do not forget: bash launch/tpu_vm.sh delete" in done.stderr


def test_no_capacity_for_ever(launch: Launch, cloud: StandIns) -> None:
    cloud.set(create=[NO_ROOM] * 9)
    done = launch("tpu_vm.sh", *tpu_run("--capacity-tries=3"))
    assert done.returncode == 1
    assert "z-a had no room for v5litepod-16, asked 3 times" in done.stderr
    assert verbs(cloud) == ["create"] * 3


def test_a_worker_that_fails_is_named_and_the_others_are_ended(
    launch: Launch, cloud: StandIns
) -> None:
    cloud.set(training=[["sleep", 7]])
    done = launch("tpu_vm.sh", *tpu_run("--delete-after"))
    assert done.returncode == 7, done.stderr
    assert "error: worker 1: ended with status 7" in done.stderr
    assert "error: worker 0" not in done.stderr
    assert "  start 1 on worker 1: 7" in done.stderr  # its last log lines
    assert "the machines are kept for you to look at: bash launch/tpu_vm.sh delete" in done.stderr
    assert "delete" not in verbs(cloud)
    assert not is_training(cloud, 0)


def test_the_first_to_fail_gives_the_status(launch: Launch, cloud: StandIns) -> None:
    cloud.set(training=[["late", 5]])
    done = launch("tpu_vm.sh", *tpu_run(), "--poll-seconds=0.5")
    assert done.returncode == 5
    assert "worker 0: ended with status 9" in done.stderr
    assert "worker 1: ended with status 5" in done.stderr
    assert (
        "the last lines of worker 1, which failed first:\n  start 1 on worker 1: 5" in done.stderr
    )


def is_training(cloud: StandIns, worker: int) -> bool:
    pid = (cloud.home(worker) / "fgr_jax_launch" / "pid").read_text().strip()
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(") ")[2][0] != "Z"


def test_after_a_preemption_new_machines_go_on(launch: Launch, cloud: StandIns) -> None:
    cloud.set(training=[["sleep", "preempt"], [0, 0]])
    done = launch("tpu_vm.sh", *tpu_run("--spot"))
    assert done.returncode == 0, done.stderr
    assert verbs(cloud) == ["create", "scp", "delete", "create", "scp"]
    assert len(cloud.trainings(0)) == 2
    assert cloud.trainings(0)[0] == cloud.trainings(0)[1]
    assert "fgr-jax: PREEMPTED" in done.stderr
    assert "restart 1" in done.stderr
    assert done.stdout == "start 1 on worker 0: sleep\nstart 2 on worker 0: trains\n"


def test_a_failure_before_the_machines_are_gone_is_a_preemption(
    launch: Launch, cloud: StandIns
) -> None:
    cloud.set(training=[["sleep", 134], [0, 0]])
    done = launch("tpu_vm.sh", *tpu_run("--spot"))
    assert done.returncode == 0, done.stderr
    assert verbs(cloud) == ["create", "scp", "delete", "create", "scp"]
    assert "error" not in done.stderr


def test_status_143_begins_again_on_the_same_machines(launch: Launch, cloud: StandIns) -> None:
    cloud.set(training=[[143, 143], [143, 0], ["slow", "slow"]])
    done = launch("tpu_vm.sh", *tpu_run())
    assert done.returncode == 0, done.stderr
    assert verbs(cloud) == ["create", "scp"]
    assert len(cloud.trainings(1)) == 3
    for start in (1, 2, 3):
        assert done.stdout.count(f"start {start} on worker 0") == 1


def test_no_restarts_without_end(launch: Launch, cloud: StandIns) -> None:
    cloud.set(training=[[143, 143]] * 9)
    done = launch("tpu_vm.sh", *tpu_run("--max-restarts=2"))
    assert "begun again 2 times, and not finished" in one_error(done)
    assert len(cloud.trainings(0)) == 3


def test_lost_machines_with_the_workdir_on_them(launch: Launch, cloud: StandIns) -> None:
    cloud.set(training=[["preempt"]], workers=1)
    done = launch("tpu_vm.sh", *tpu_run("--type=v5litepod-8", "--workdir=runs/x"))
    assert "the machines are lost, and --workdir=runs/x with them" in one_error(done)
    assert verbs(cloud) == ["create", "scp"]


def test_a_local_workdir_is_fetched_before_the_machine_is_deleted(
    launch: Launch, cloud: StandIns, tmp_path: Path
) -> None:
    cloud.set(workers=1)
    arguments = tpu_run("--type=v5litepod-8", "--workdir=runs/my run", "--delete-after")
    done = launch("tpu_vm.sh", *arguments, f"--output={tmp_path}/results")
    # The stand-in for training writes no workdir, so it cannot be fetched: the machine must stay.
    assert done.returncode != 0
    assert verbs(cloud) == ["create", "scp", "scp"]
    made = cloud.home(0) / "fgr_jax_launch" / "runs" / "my run"
    assert f"--workdir={made}" in cloud.trainings(0)[0]
    made.mkdir(parents=True)
    (made / "metrics.jsonl").touch()
    done = launch("tpu_vm.sh", *arguments, f"--output={tmp_path}/results")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "my run" / "metrics.jsonl").exists()
    assert verbs(cloud)[-2:] == ["scp", "delete"]


def test_ctrl_c_leaves_training_alone_and_the_same_command_comes_back(
    project: Path, launch: Launch, cloud: StandIns
) -> None:
    cloud.set(training=[["sleep", "sleep"]])
    watching = subprocess.Popen(
        ["bash", "launch/tpu_vm.sh", *tpu_run()],
        cwd=project,
        env=cloud.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout
    assert watching.stdout.readline() == "start 1 on worker 0: sleep\n"
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=20)
    assert watching.returncode == 130
    assert "training goes on without this terminal" in said
    assert "to end it, and what it costs: bash launch/tpu_vm.sh delete" in said
    assert is_training(cloud, 0)
    assert is_training(cloud, 1)
    # The run ends while nobody watches it; before that, a second start is refused.
    again = launch("tpu_vm.sh", "train", "--zone=z-a", CONFIG, WORKDIR)
    assert again.returncode == 1
    assert "a run is going on here already" in again.stderr
    watching = subprocess.Popen(
        ["bash", "launch/tpu_vm.sh", *tpu_run()],
        cwd=project,
        env=cloud.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout
    assert watching.stdout.readline() == "start 1 on worker 0: sleep\n"
    for worker in (0, 1):
        ours = cloud.home(worker) / "fgr_jax_launch"
        (ours / "status").write_text("0 1\n")
    _, said = watching.communicate(timeout=20)
    assert watching.returncode == 0, said
    assert "a run is going on there; watching it" in said
    assert verbs(cloud) == ["create", "scp"]
    assert len(cloud.trainings(0)) == 1


def test_training_outlives_its_connection_and_leaves_a_status(
    launch: Launch, cloud: StandIns
) -> None:
    cloud.set(training=[["sleep"]], workers=1)
    for step in (["create", "--type=v4-8"], ["setup"], ["train", CONFIG, WORKDIR]):
        assert launch("tpu_vm.sh", *step, "--zone=z-a").returncode == 0
    ours = cloud.home(0) / "fgr_jax_launch"
    wait_until(lambda: "start 1" in (ours / "log.txt").read_text())
    pid = int((ours / "pid").read_text())
    assert os.getsid(pid) == pid
    os.killpg(pid, signal.SIGHUP)  # as when a connection breaks
    time.sleep(0.2)
    assert is_training(cloud, 0)
    os.killpg(pid, signal.SIGTERM)  # as when a machine shuts down: to all at once
    wait_until((ours / "status").exists)
    assert (ours / "status").read_text().startswith("143 ")


def test_a_queue_is_waited_for(launch: Launch, cloud: StandIns) -> None:
    cloud.set(queue=["ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"])
    arguments = ["--zone=z-a", "--type=v4-8", "--queued", "--spot", "--poll-seconds=0.01"]
    done = launch("tpu_vm.sh", "create", *arguments)
    assert done.returncode == 0, done.stderr
    made = cloud.calls("gcloud", "create")[0]
    assert made[2:5] == ["queued-resources", "create", "fgr-jax"]
    assert {"--node-id=fgr-jax", "--runtime-version=tpu-ubuntu2204-base", "--spot"} < set(made)
    assert len(cloud.calls("gcloud", "queued-resources", "describe")) == 4
    assert done.stderr.count("WAITING; looking every 0.01 s") == 1
    assert "delete --name=fgr-jax --zone=z-a --queued" in done.stderr
    done = launch("tpu_vm.sh", "delete", "--zone=z-a", "--queued")
    assert done.returncode == 0, done.stderr
    [deleted] = cloud.calls("gcloud", "delete")
    assert deleted[2:6] == ["queued-resources", "delete", "fgr-jax", "--force"]


def test_a_suspended_queued_resource_is_made_anew(launch: Launch, cloud: StandIns) -> None:
    cloud.set(training=[["sleep", "sleep"], [0, 0]], queue=["ACTIVE", "SUSPENDED", "SUSPENDED"])
    done = launch("tpu_vm.sh", *tpu_run("--queued", "--spot"))
    assert done.returncode == 0, done.stderr
    assert verbs(cloud) == ["create", "scp", "delete", "create", "scp"]
    assert "fgr-jax: SUSPENDED" in done.stderr


def test_a_refused_request_in_the_queue(launch: Launch, cloud: StandIns) -> None:
    cloud.set(queue=["FAILED"])
    done = launch("tpu_vm.sh", "create", "--zone=z-a", "--type=v4-8", "--queued")
    assert "fgr-jax: is FAILED: z-a had no room for it in time" in one_error(done)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("ALREADY_EXISTS: Resource exists", "--name=fgr-jax is taken in z-a: use it"),
        ("You do not currently have\n an active account", "gcloud said: ERROR: (gcloud"),
    ],
)
def test_other_errors_of_gcloud(launch: Launch, cloud: StandIns, message: str, said: str) -> None:
    cloud.set(create=[message])
    assert said in one_error(launch("tpu_vm.sh", "create", "--zone=z-a", "--type=v4-8"))


def test_data_that_is_too_large_for_the_disk(launch: Launch, cloud: StandIns) -> None:
    done = launch("tpu_vm.sh", *tpu_run(DATA), BUCKET_BYTES=str(10**18))
    assert done.returncode == 1
    assert "error: the data needs 931322574 GB and the disk has" in done.stderr
    assert "name another folder, as in --config.data.data_dir=/dev/shm/data" in done.stderr
    assert cloud.trainings(0) == []


def test_data_is_prepared_on_the_workers(launch: Launch, cloud: StandIns, tmp_path: Path) -> None:
    place = ["--zone=z-a", "--project=p"]
    for step in (["create", "--type=v4-8"], ["setup"]):
        assert launch("tpu_vm.sh", *step, *place).returncode == 0
    folder = f"--config.data.data_dir={tmp_path}/my data"
    sources = ["--source=/mnt/a b.tgz", "--source=c.zip"]
    done = launch("tpu_vm.sh", "data", *place, CONFIG, folder, *sources)
    assert done.returncode == 0, done.stderr
    for worker in (0, 1):
        [prepared] = cloud.calls(f"python of worker {worker}", "fgr_jax.prepare")
        assert prepared == ["-m", "fgr_jax.prepare", CONFIG, folder, *sources]
    done = launch("tpu_vm.sh", "train", *place, CONFIG, folder, WORKDIR)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: bool(cloud.trainings(1)))
    assert cloud.trainings(1) == [["--distributed", CONFIG, folder, WORKDIR]]
    assert all("--project=p" in call for call in cloud.calls("gcloud", "compute"))


def test_status_follow_fetch_and_delete(launch: Launch, cloud: StandIns, project: Path) -> None:
    place = ["--zone=z-a"]
    assert launch("tpu_vm.sh", "status", *place).stdout == "fgr-jax: GONE\n"
    for step in (["create", "--type=v4-8"], ["setup"], ["train", CONFIG, WORKDIR]):
        assert launch("tpu_vm.sh", *step, *place).returncode == 0
    wait_until(lambda: (cloud.home(1) / "fgr_jax_launch" / "status").exists())
    wait_until(lambda: (cloud.home(0) / "fgr_jax_launch" / "status").exists())
    for worker in (0, 1):  # a process that is gone: `tail --pid` would wait for a zombie
        (cloud.home(worker) / "fgr_jax_launch" / "pid").write_text("999999999\n")
    states = launch("tpu_vm.sh", "status", *place).stdout.splitlines()
    assert states[0] == "fgr-jax: READY"
    assert [line.split()[:3] for line in states[1:]] == [["worker", "0", "0"], ["worker", "1", "0"]]
    assert launch("tpu_vm.sh", "follow", *place).stdout == "start 1 on worker 0: trains\n"
    shown = launch("tpu_vm.sh", "follow", "--all", *place).stdout.splitlines()
    assert [line for line in shown if line.startswith("worker 1: start")] == [
        "worker 1: start 1 on worker 1: trains"
    ]
    assert launch("tpu_vm.sh", "fetch", WORKDIR, *place).returncode == 0
    [copied] = cloud.calls("gcloud", "cp")
    assert copied == ["storage", "cp", "--recursive", "gs://b/runs/cub", f"{project}/runs"]
    assert launch("tpu_vm.sh", "delete", *place).returncode == 0
    assert "there is no fgr-jax in z-a" in one_error(launch("tpu_vm.sh", "delete", *place))


def wait_until(true: Callable[[], bool]) -> None:
    """Waits for something that another process does, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_file_that_is_deleted_here_stops_the_copy(
    launch: Launch, cloud: StandIns, project: Path
) -> None:
    (project / "a file").unlink()
    done = launch("tpu_vm.sh", "setup", "--zone=z-a")
    assert "a file: deleted here, but git still tracks it" in one_error(done)
    assert cloud.all_calls() == []


# --- slurm.sbatch ---


def slurm(launch: Launch, project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return launch(
        "slurm.sbatch",
        *arguments,
        SLURM_JOB_ID="42",
        SLURM_SUBMIT_DIR=str(project),
        SLURM_CPUS_PER_TASK="6",
    )


def test_slurm_hands_the_arguments_on(launch: Launch, cloud: StandIns, project: Path) -> None:
    done = slurm(launch, project, CONFIG, WORKDIR, *ODD)
    assert done.returncode == 0, done.stderr
    [call] = cloud.calls("srun")
    assert call[call.index("-m") :] == [
        *("-m", "fgr_jax.main", "--distributed", CONFIG, WORKDIR, *ODD)
    ]
    assert {"--cpus-per-task=6", "--kill-on-bad-exit=0", "--wait=60"} < set(call)
    assert cloud.calls("scontrol") == []
    dry = launch("slurm.sbatch", "--dry-run", CONFIG, WORKDIR, *ODD, SLURM_CPUS_PER_TASK="6")
    assert shlex.split(dry.stdout) == ["srun", *call]


@pytest.mark.parametrize(("status", "requeued"), [(143, True), (1, False), (137, False)])
def test_slurm_goes_back_into_the_queue_after_143_alone(
    launch: Launch, cloud: StandIns, project: Path, status: int, requeued: bool
) -> None:
    cloud.set(srun=[status])
    done = slurm(launch, project, CONFIG)
    assert done.returncode == (0 if requeued else status)
    assert cloud.calls("scontrol") == ([["requeue", "42"]] if requeued else [])
    if not requeued:
        assert f"a task of job 42 failed with status {status}" in done.stderr


def test_slurm_that_does_not_take_it_back(launch: Launch, cloud: StandIns, project: Path) -> None:
    cloud.set(srun=[143], scontrol=[1])
    assert "scontrol requeue 42 did not work" in one_error(slurm(launch, project, CONFIG))


@pytest.mark.parametrize("status", [143, 1])
def test_slurm_hands_a_sigterm_to_its_tasks_and_waits(
    cloud: StandIns, project: Path, tmp_path: Path, status: int
) -> None:
    (cloud.bin / "srun").write_text(
        f"#!/bin/bash\ntrap 'sleep 0.3; exit {status}' TERM\ntouch {tmp_path}/started\n"
        "for i in {1..200}; do sleep 0.05; done\n"
    )
    # Slurm runs a copy from elsewhere, in the folder of submission or not.
    copied = tmp_path / "slurm_script"
    shutil.copy(project / "launch" / "slurm.sbatch", copied)
    job = subprocess.Popen(
        ["bash", copied, CONFIG],
        cwd=tmp_path,
        env=cloud.environment | {"SLURM_JOB_ID": "42", "SLURM_SUBMIT_DIR": str(project)},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until((tmp_path / "started").exists)
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=20)
    assert job.returncode == (0 if status == 143 else status), said
    assert cloud.calls("scontrol") == ([["requeue", "42"]] if status == 143 else [])


def test_slurm_outside_of_the_project(launch: Launch, tmp_path: Path) -> None:
    done = launch("slurm.sbatch", CONFIG, SLURM_JOB_ID="42", SLURM_SUBMIT_DIR=str(tmp_path))
    assert f"{tmp_path}: is not the root of the project" in one_error(done)


def test_slurm_reads_its_options() -> None:
    """Slurm stops reading at the first line that is a command."""
    lines = (ROOT / "launch" / "slurm.sbatch").read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    options = [
        line.removeprefix("#SBATCH ") for line in lines[:first] if line.startswith("#SBATCH")
    ]
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(options)
    assert not any(option.startswith("--gpus-per-task") for option in options)


# --- gke.sh ---


def pods(manifest: dict) -> dict:
    """The pods of the one job of a JobSet."""
    [job] = manifest["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]


def test_gke_on_a_tpu_slice(launch: Launch, cloud: StandIns) -> None:
    done = launch("gke.sh", "apply", *GKE, CONFIG, *BUCKETS, *ODD, "--name=run-1", "--namespace=n")
    assert done.returncode == 0, done.stderr
    assert cloud.calls("kubectl") == [["--namespace=n", "apply", "--filename=-"]]
    applied = (cloud.folder / "applied.yaml").read_text()
    assert "__" not in applied
    manifest = yaml.safe_load(applied)
    assert manifest["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert manifest["metadata"]["name"] == "run-1"
    [job] = manifest["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert (spec["parallelism"], spec["completions"]) == (4, 4)
    assert (spec["completionMode"], spec["backoffLimit"]) == ("Indexed", 0)
    disrupted, saved = spec["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert saved["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [143]}
    [rule] = manifest["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] == 3
    pod = pods(manifest)
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 120
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
    }
    [container] = pod["containers"]
    assert container["name"] == "train"
    assert container["image"] == "r/fgr"
    assert container["resources"] == {
        "limits": {"google.com/tpu": 4},
        "requests": {"google.com/tpu": 4},
    }
    assert container["command"] == ["python", "-m", "fgr_jax.main"]
    assert [as_kubernetes_reads(text) for text in container["args"]] == [
        *("--distributed", CONFIG, *BUCKETS, *ODD)
    ]


def as_kubernetes_reads(argument: str, **variables: str) -> str:
    """What Kubernetes makes of $$ and $(NAME) in an argument."""
    read, rest = "", argument
    while rest:
        name = rest[2:].partition(")")[0]
        if rest.startswith("$$"):
            read, rest = read + "$", rest[2:]
        elif rest.startswith("$(") and name in variables:
            read, rest = read + variables[name], rest[len(name) + 3 :]
        else:
            read, rest = read + rest[0], rest[1:]
    return read


def test_gke_on_gpus(launch: Launch, cloud: StandIns) -> None:
    gpus = ["--image=r/fgr", "--gpu=nvidia-l4", "--hosts=2", "--chips=8", "--service-account=s"]
    done = launch("gke.sh", "apply", *gpus, CONFIG, *BUCKETS)
    assert done.returncode == 0, done.stderr
    pod = pods(yaml.safe_load((cloud.folder / "applied.yaml").read_text()))
    assert pod["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert pod["serviceAccountName"] == "s"
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    arguments = [as_kubernetes_reads(a, JOB_COMPLETION_INDEX="1") for a in container["args"]]
    assert arguments == [
        *("--coordinator=fgr-jax-host-0-0.fgr-jax:8476", "--process_count=2", "--process_id=1"),
        *(CONFIG, *BUCKETS),
    ]
    assert container["ports"] == [{"containerPort": 8476}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*GKE[1:], CONFIG, *BUCKETS], "no image: name one"),
        ([*GKE, *BUCKETS], "no config: name one"),
        ([GKE[0], "--chips=4", CONFIG, *BUCKETS], "neither --tpu nor --gpu"),
        ([*GKE, "--gpu=nvidia-l4", CONFIG, *BUCKETS], "--gpu=nvidia-l4: leave out one"),
        ([*GKE[:2], "--chips=4", CONFIG, *BUCKETS], "say the node pool's topology too"),
        ([*GKE[:4], CONFIG, *BUCKETS], "no --chips: say how many"),
        ([*GKE, CONFIG, BUCKETS[1], "--workdir=runs/x"], "--workdir=runs/x: is lost with its pod"),
        ([*GKE, CONFIG, WORKDIR], "--config.data.data_dir=: is lost with its pod"),
        ([*GKE, CONFIG, *BUCKETS, "--hosts=many"], "--hosts=many: must be a whole number"),
    ],
)
def test_gke_without_what_it_needs(
    launch: Launch, cloud: StandIns, arguments: list[str], said: str
) -> None:
    assert said in one_error(launch("gke.sh", "apply", *arguments))
    assert cloud.all_calls() == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  labels: __LABELS__", "__LABELS__ is none of the values"),
        ("  labels: x__IMAGE__x", "must be the whole value:   labels: x__IMAGE__x"),
    ],
)
def test_gke_refuses_what_it_cannot_fill_in(
    launch: Launch, cloud: StandIns, project: Path, line: str, said: str
) -> None:
    path = project / "launch" / "jobset.yaml"
    path.write_text(path.read_text().replace("metadata:\n", f"metadata:\n{line}\n", 1))
    assert said in one_error(launch("gke.sh", "apply", *GKE, CONFIG, *BUCKETS))
    assert cloud.all_calls() == []


def test_gke_that_cannot_apply(launch: Launch, cloud: StandIns) -> None:
    cloud.set(kubectl=[1])
    done = launch("gke.sh", "apply", *GKE, CONFIG, *BUCKETS)
    assert "kubectl apply: did not work" in one_error(done)
    assert "kubectl: the stand-in's error" in done.stderr
    assert "started:" not in done.stderr


def test_gke_a_dry_run_can_be_pasted(launch: Launch, cloud: StandIns, project: Path) -> None:
    arguments = ["gke.sh", "apply", *GKE, CONFIG, *BUCKETS, *ODD]
    printed = launch(*arguments, "--dry-run").stdout
    subprocess.run(["bash", "-c", printed], cwd=project, env=cloud.environment, check=True)
    pasted = (cloud.folder / "applied.yaml").read_text()
    launch(*arguments)
    assert (cloud.folder / "applied.yaml").read_text() == pasted


def test_gke_follow_status_and_delete(launch: Launch, cloud: StandIns) -> None:
    for words in (["follow"], ["status"], ["delete"]):
        assert launch("gke.sh", *words, "--name=run-1").returncode == 0
    follow, jobset, _, delete = cloud.calls("kubectl")
    assert follow[:2] == ["logs", "--follow"]
    assert any("jobset-name=run-1,batch.kubernetes.io/job-completion-index=0" in w for w in follow)
    assert jobset == ["get", "jobset/run-1"]
    assert delete == ["delete", "jobset", "run-1"]


def test_the_image_has_the_versions_of_requirements() -> None:
    """The Dockerfile's sed commands find jax and gcsfs in requirements.txt, as setup does."""
    text = (ROOT / "launch" / "Dockerfile").read_text()
    assert "FROM python:3.12-slim" in text
    assert "$(sed -n 's/^jax==//p' requirements.txt)" in text
    ours = text.split("$(")[-1].rpartition(")")[0]
    setup = f"source launch/common.sh; pinned_jax; pinned_gcsfs; {ours}"
    done = subprocess.run(["bash", "-c", setup], cwd=ROOT, capture_output=True, text=True)
    jax, gcsfs, of_dockerfile = done.stdout.split()
    assert jax == JAX
    assert gcsfs == of_dockerfile
    assert gcsfs.startswith("gcsfs==")


# --- local.sh ---

_PROCESS = """#!{python} -SE
import json, os, pathlib, signal, sys, time
folder = pathlib.Path({folder!r})
index = next(a for a in sys.argv if a.startswith("--process_id=")).partition("=")[2]
starts = folder / f"starts.{{index}}"
plan = json.loads((folder / "plan.json").read_text())
what = plan[index][len(starts.read_text()) if starts.exists() else 0]
kept = {{name: os.environ.get(name) for name in ("JAX_NUM_CPU_DEVICES", "CUDA_VISIBLE_DEVICES")}}
(folder / f"called.{{index}}").write_text(json.dumps([sys.argv[1:], kept]))
if what == "saves":
    def save(number, frame):
        time.sleep(0.2)
        print("saved", flush=True)
        sys.exit(128 + number)
    signal.signal(signal.SIGTERM, save)
    signal.signal(signal.SIGINT, save)
elif what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with starts.open("a") as file:
    file.write(".")
print("process", index, "says", what, flush=True)
print("on standard error", file=sys.stderr, flush=True)
if what == "fails last":
    while len(list(folder.glob("pid.*"))) < 2:
        time.sleep(0.02)
    sys.exit(3)
if isinstance(what, int):
    time.sleep(0.1)
    sys.exit(what)
(folder / f"pid.{{index}}").write_text(str(os.getpid()))
time.sleep(30)
"""


class Local:
    """launch/local.sh with a stand-in for python, which does what the plan says for its process."""

    def __init__(self, folder: Path, **plan: list[object]) -> None:
        self.folder = folder
        folder.mkdir()
        self.python = folder / "python"
        self.python.write_text(_PROCESS.format(python=sys.executable, folder=str(folder)))
        self.python.chmod(0o755)
        plans = {name.removeprefix("process_"): starts for name, starts in plan.items()}
        (folder / "plan.json").write_text(json.dumps(plans))
        self.count = len(plan)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts it, in a group of its own as a terminal would."""
        return subprocess.Popen(
            [
                *("bash", ROOT / "launch" / "local.sh", CONFIG, f"--processes={self.count}"),
                *("--port=12345", "--poll-seconds=0.05", *arguments),
            ],
            cwd=self.folder,
            env=os.environ | {"PYTHON": str(self.python)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def starts(self) -> list[int]:
        """How often each process was started."""
        paths = [self.folder / f"starts.{index}" for index in range(self.count)]
        return [len(path.read_text()) if path.exists() else 0 for path in paths]

    def pid(self, index: int) -> int:
        """Of a process, once it is at work."""
        path = self.folder / f"pid.{index}"
        wait_until(lambda: path.exists() and bool(path.read_text()))
        return int(path.read_text())


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "Z"


def test_local_processes_are_told_who_they_are(tmp_path: Path) -> None:
    local = Local(tmp_path / "local", process_0=[0], process_1=[0])
    started = local.start("--devices=3", "--workdir=runs/a b", *ODD)
    printed, said = started.communicate(timeout=20)
    assert started.returncode == 0, said
    for index in (0, 1):
        called, environment = json.loads((local.folder / f"called.{index}").read_text())
        assert called == [
            *("-m", "fgr_jax.main", "--coordinator=localhost:12345", "--process_count=2"),
            *(f"--process_id={index}", CONFIG, "--workdir=runs/a b", *ODD),
        ]
        assert environment == {"JAX_NUM_CPU_DEVICES": "3", "CUDA_VISIBLE_DEVICES": None}
    lines = printed.splitlines()
    assert sorted(lines) == ["[1] on standard error", "[1] process 1 says 0", "process 0 says 0"]
    assert "on standard error" in said.splitlines()


def test_local_gives_each_process_a_gpu(tmp_path: Path) -> None:
    local = Local(tmp_path / "local", process_0=[0], process_1=[0])
    started = local.start("--gpus")
    assert started.wait(timeout=20) == 0
    for index in (0, 1):
        _, environment = json.loads((local.folder / f"called.{index}").read_text())
        assert environment == {"JAX_NUM_CPU_DEVICES": None, "CUDA_VISIBLE_DEVICES": str(index)}


def test_local_ends_the_others_when_one_fails(tmp_path: Path) -> None:
    plan: dict[str, list[object]] = {
        "process_0": ["stubborn"],
        "process_1": ["saves"],
        "process_2": ["fails last"],
    }
    local = Local(tmp_path / "local", **plan)
    started = local.start("--grace=1")
    printed, said = started.communicate(timeout=20)
    assert started.returncode == 3
    assert "error: process 2 ended with status 3; the others have 1 s to end" in said
    assert "[1] saved" in printed.splitlines()  # it was asked before it was forced
    assert is_gone(local.pid(0))
    assert is_gone(local.pid(1))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_local_hands_a_signal_on_and_all_save(tmp_path: Path, number: signal.Signals) -> None:
    local = Local(tmp_path / "local", process_0=["saves", 0], process_1=["saves", 0])
    started = local.start("--restart")
    local.pid(0)
    local.pid(1)
    os.killpg(started.pid, number)  # as the terminal does; the processes have groups of their own
    printed, said = started.communicate(timeout=20)
    assert started.returncode == 143, said
    assert sorted(line for line in printed.splitlines() if "saved" in line) == [
        "[1] saved",
        "saved",
    ]
    assert local.starts() == [1, 1]  # --restart is not for those who asked for an end
    assert "error:" not in said


def test_local_restarts_while_all_have_saved(tmp_path: Path) -> None:
    local = Local(tmp_path / "local", process_0=[143, 143, 0], process_1=[143, 143, 0])
    started = local.start("--restart")
    _, said = started.communicate(timeout=20)
    assert started.returncode == 0, said
    assert local.starts() == [3, 3]
    assert said.count("all processes saved; running again") == 2


def test_local_without_restart_says_that_it_was_saved(tmp_path: Path) -> None:
    local = Local(tmp_path / "local", process_0=[143], process_1=[0])
    assert local.start().wait(timeout=20) == 143
    assert local.starts() == [1, 1]


def test_local_does_not_restart_what_failed(tmp_path: Path) -> None:
    local = Local(tmp_path / "local", process_0=[143], process_1=[1])
    assert local.start("--restart").wait(timeout=20) == 1
    assert local.starts() == [1, 1]


@pytest.mark.long
def test_local_trains(data_dir: Path, tmp_path: Path) -> None:
    """Two real processes end like one, with the same pictures and masks."""
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
    comparison = compare(RunFolder.open(alone), RunFolder.open(together))
    assert comparison.steps
    assert not {"images", "labels", "masks"} & comparison.parted.keys()

"""Runs and data sets in a bucket, on an emulator of Google Cloud Storage."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from etils import epath
from several_processes import free_port
from tiny_run import QUIET, ROOT, command, config_flags, small_config

from fgr_jax.data.prepare.bucket_copy import copy_from_bucket
from fgr_jax.errors import UserError
from fgr_jax.runs import checkpoints
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train


def test_a_run_in_a_bucket(data_dir: Path, bucket: str, tmp_path: Path) -> None:
    """Stopped after its first epoch on one machine, it is resumed on another, and ends as anywhere."""
    config = small_config(data_dir)
    here, there = tmp_path / "run", f"{bucket}/runs/one"

    def run(workdir: str | Path, duration: str) -> subprocess.CompletedProcess[str]:
        config.duration = duration
        done = subprocess.run(
            [*command(config, Path("W"))[:-1], f"--workdir={workdir}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    run(here, "13 steps")
    done = run(there, "13 steps")
    assert f"Files in {there}:" in done.stdout
    remote = epath.Path(there)
    for name in ("metrics.jsonl", "fingerprints.jsonl", "config.json", "classes.json"):
        assert (remote / name).read_bytes() == (here / name).read_bytes(), name
    assert any("tfevents" in path.name for path in (remote / "tensorboard").iterdir())
    assert "this run is finished" in run(there, "13 steps").stdout

    # As a machine that was taken away leaves it: the last checkpoint is not whole.
    last = remote / "checkpoints" / "13"
    (last / "commit_success.txt").unlink()
    assert checkpoints.latest_step(remote / "checkpoints") == 7
    assert "step 7 of this workdir" in run(there, "13 steps").stdout
    for name in ("metrics.jsonl", "fingerprints.jsonl"):
        assert (remote / name).read_bytes() == (here / name).read_bytes(), name
    ours, theirs = (
        checkpoints.read_latest(Workdir.open(path).checkpoints) for path in (there, here)
    )
    assert int(ours["step"]) == int(theirs["step"]) == 13
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.long
def test_two_processes_end_with_a_report(data_dir: Path, bucket: str) -> None:
    """Only process 0 has written into its copy of the folder; the others need what is in there."""
    config = small_config(data_dir)
    config.duration, config.runtime.report = "1 epoch", True
    folder, port = f"{bucket}/runs/three", free_port()
    started = [
        subprocess.Popen(
            [
                *command(config, Path("W"))[:-1],
                f"--workdir={folder}",
                f"--coordinator=localhost:{port}",
                "--process_count=2",
                f"--process_id={index}",
            ],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    printed = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    assert f"report    {folder}/report.html" in printed[0]
    assert "<!DOCTYPE html>" in (epath.Path(folder) / "report.html").read_text()
    assert json.loads((epath.Path(folder) / "provenance.jsonl").read_text())["process_count"] == 2


def test_the_results_are_in_the_bucket_before_the_checkpoint(
    data_dir: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is taken away right after a checkpoint takes no line of its metrics along."""

    def taken_away(*_: object, **__: object) -> None:
        raise RuntimeError("the machine is gone")

    monkeypatch.setattr(checkpoints.Checkpoints, "save", taken_away)
    with pytest.raises(RuntimeError, match="gone"):
        train(small_config(data_dir), Workdir.open(f"{bucket}/runs/two"), QUIET)
    lines = (epath.Path(bucket) / "runs/two/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [7, 7]


def test_data_sets_are_prepared_on_a_disk(data_dir: Path) -> None:
    def prepare(folder: str | Path) -> subprocess.CompletedProcess[str]:
        config = small_config(Path("D"))
        config.data.data_dir = str(folder)
        return subprocess.run(
            [sys.executable, "-m", "fgr_jax.prepare", *config_flags(config)],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )

    refused = prepare("gs://bucket/tfds")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: --config.data.data_dir=gs://bucket/tfds: ")
    assert len(refused.stderr.splitlines()) == 1
    generated = prepare(data_dir)  # what needs no download is said to be there
    assert generated.returncode == 0, generated.stderr
    assert "data set synthetic/tiny: 52 train, 27 test images" in generated.stdout


def test_only_what_has_changed_is_written_back(bucket: str) -> None:
    """Somebody who reads a run must not put its job's newer files back to what they were."""
    remote = epath.Path(f"{bucket}/runs/read")
    (remote / "metrics.jsonl").write_text("one")
    reader = Workdir.open(str(remote))
    (remote / "metrics.jsonl").write_text("one and two")
    (reader.local / "report.html").write_text("a report")
    reader.publish()
    assert (remote / "metrics.jsonl").read_text() == "one and two"
    assert (remote / "report.html").read_text() == "a report"


def test_a_data_set_in_a_bucket_is_copied_once(data_dir: Path, bucket: str, tmp_path: Path) -> None:
    remote = epath.Path(f"{bucket}/tfds")
    for path in (data_dir / "synthetic").rglob("*"):
        if path.is_file():
            path_there = remote / path.relative_to(data_dir).as_posix()
            epath.Path(path).copy(path_there)
    copies = tmp_path / "copies"
    copied = copy_from_bucket(str(remote), "synthetic/tiny", copies, QUIET)
    sizes = {
        path.relative_to(copied).as_posix(): path.stat().st_size
        for path in (copied / "synthetic").rglob("*")
        if path.is_file()
    }
    assert sizes == {
        path.relative_to(data_dir).as_posix(): path.stat().st_size
        for path in (data_dir / "synthetic" / "tiny").rglob("*")
        if path.is_file()
    }
    remote.rmtree()
    assert copy_from_bucket(str(remote), "synthetic/tiny", copies, QUIET) == copied
    with pytest.raises(UserError, match="holds no data set 'cub'"):
        copy_from_bucket(str(remote), "cub", copies, QUIET)


def test_half_a_copy_is_made_anew(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = epath.Path(f"{bucket}/half/set")
    for name in ("a", "b"):
        (remote / name).write_text(name * 10)

    def cut_off(path: epath.Path, target: Path, **_: object) -> None:
        if path.name == "b":
            raise OSError("the network is gone")
        target.write_text("half")

    with monkeypatch.context() as patch:
        patch.setattr(type(remote), "copy", cut_off)
        with pytest.raises(OSError, match="gone"):
            copy_from_bucket(f"{bucket}/half", "set", tmp_path, QUIET)
    copied = copy_from_bucket(f"{bucket}/half", "set", tmp_path, QUIET)
    assert {path.name: path.read_text() for path in (copied / "set").iterdir()} == {
        "a": "a" * 10,
        "b": "b" * 10,
    }


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("gs://", "names no bucket"),
        ("gs://nowhere/run", "there is no bucket nowhere, or this account may not see it"),
    ],
)
def test_a_bucket_that_is_not_there(path: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Workdir.open(path)


def test_without_gcsfs_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"gs://bucket/run: needs gcsfs: pip install gcsfs"):
        Workdir.open("gs://bucket/run")

"""`python -m fgr_jax.evaluate` as a user runs it, and its answers to a workdir that is not right."""

import csv
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import official_layouts
import pytest
from etils import epath
from pooled_head import POOLED_HEAD
from several_processes import free_port
from tiny_run import QUIET, ROOT, small_config, tiny_config

from fgr_jax.data.pipeline import Share, annotated_batches
from fgr_jax.data.prepare.preparation import prepare
from fgr_jax.data.sets.cub import Cub
from fgr_jax.data.source import Example, ExampleSource, open_splits
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.evaluate import __main__ as evaluate
from fgr_jax.evaluate import evaluated_run
from fgr_jax.evaluate.files import FILES
from fgr_jax.evaluate.predictions import predict_split
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.models.network import build_network, forward
from fgr_jax.predict import __main__ as predict
from fgr_jax.report import __main__ as report
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

STEPS = 20


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run; it is not to be changed."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_config(data_dir), Workdir.open(workdir), QUIET)
    return workdir


@pytest.fixture
def workdir(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def run(workdir: Path | str, *options: str) -> int:
    return evaluate.main(["evaluate", f"--workdir={workdir}", *options])


def command(workdir: Path | str, *options: str) -> list[str]:
    return [sys.executable, "-m", "fgr_jax.evaluate", f"--workdir={workdir}", *options]


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_five_crops_of_a_finished_run(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(workdir)
    assert run(workdir, "--crops=five") == 0
    printed = capsys.readouterr()
    folder = workdir / "evaluation" / f"step-{STEPS}-five"
    assert {path.name for path in folder.iterdir()} == set(FILES)
    after = contents(workdir)
    assert {name: after[name] for name in before} == before
    results = json.loads((folder / "results.json").read_text())
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    assert results["center_crop"]["top1"] == last["top1"]
    assert results["center_crop"]["top5"] == last["top5"]
    for crops in ("center_crop", "five_crops"):
        assert f"{results[crops]['top1']:.2%}" in printed.out
        assert f"{results[crops]['expected_calibration_error']:.2%}" in printed.out
    for table in ("confused pairs", "worst classes", "class activation maps, trained with the"):
        assert table in printed.out
    assert f"Files in {folder}:" in printed.out
    assert "\r" not in printed.out + printed.err
    assert "still being trained" not in printed.out
    assert "parts" not in printed.out
    assert len(rows_of(folder / "predictions.csv")) == 27


def test_the_same_again_is_the_same_files(workdir: Path) -> None:
    assert run(workdir) == 0
    folder = workdir / "evaluation" / f"step-{STEPS}-one"
    before = contents(folder)
    assert "five_crops" not in json.loads((folder / "results.json").read_text())
    assert run(workdir, "--batch_size=8") == 0
    assert contents(folder) == before


def test_an_earlier_checkpoint(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(workdir, "--step=13") == 0
    assert "this is the checkpoint of step 13 of 20, not of the last" in capsys.readouterr().out
    results = json.loads((workdir / "evaluation" / "step-13-one" / "results.json").read_text())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    (expected,) = (line for line in lines if line["step"] == 13 and line["split"] == "test")
    assert results["step"] == 13
    assert results["center_crop"]["top1"] == expected["top1"]


def test_a_run_that_is_still_being_trained(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    lock = os.open(workdir / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert run(workdir) == 0
    finally:
        os.close(lock)
    assert (
        "the run is still being trained: this is its checkpoint of step 13 of 20"
        in capsys.readouterr().out
    )


def test_evaluating_does_not_keep_a_run_from_starting(workdir: Path) -> None:
    assert run(workdir) == 0
    lock = os.open(workdir / "lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(lock)


def test_cub_counts_parts(
    workdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = official_layouts.write_cub(tmp_path, test=3)
    monkeypatch.setattr(Cub, "CLASSES", len(written.class_names))
    splits = [record.split for record in written.records]
    monkeypatch.setattr(Cub, "COUNTS", {split: splits.count(split) for split in set(splits)})
    prepare(Cub, written.archives, tmp_path / "tfds", QUIET)
    # As if the network had been trained there: it has as many classes.
    data = {"data__name": "cub", "data__data_dir": str(tmp_path / "tfds")}
    with_fields(**data, diversification__alpha=1.0)(workdir)
    with_classes(lambda _: list(written.class_names))(workdir)
    assert run(workdir) == 0
    printed = capsys.readouterr().out
    assert "trained without the block" in printed
    assert "parts in it" in printed
    folder = workdir / "evaluation" / f"step-{STEPS}-one"
    rows = rows_of(folder / "predictions.csv")
    parts = {record.name: np.array(record.extra["parts"]) for record in written.records}
    height, width, resize, crop = 40, 48, 36, 32
    margin = (resize - crop) / 2
    for row in rows:
        x, y, visible = parts[row["file_name"]].T
        x = (x + 0.5) * resize / width - margin
        y = (y + 0.5) * resize / height - margin
        inside = (x >= 0) & (x < crop) & (y >= 0) & (y < crop)
        assert int(row["visible_parts"]) == (inside & (visible == 1)).sum()
    summary = json.loads((folder / "results.json").read_text())["maps"]["predicted_class"]
    kept = [row for row in rows if row["predicted_map_parts"]]
    for name, number in parts_by_hand(workdir).items():
        (found,) = (row for row in kept if row["file_name"] == name)
        assert float(found["predicted_map_parts"]) == number
    assert summary["visible_parts"] == sum(int(row["visible_parts"]) for row in kept) > 0
    in_region = sum(float(row["predicted_map_parts"]) for row in kept)
    assert summary["parts_in_region"] == in_region
    assert summary["parts_share"] == pytest.approx(in_region / summary["visible_parts"])


def parts_by_hand(workdir: Path) -> dict[str, int]:
    """By file name: how many parts of the image lie in the predicted class's high region."""
    opened = open_run(Workdir.open(workdir))
    data = opened.config.data
    trained = restore(opened, None, data_mesh(jax.devices()[:1]))
    found = {}
    source = open_splits(data, QUIET)[1]
    share = Share(len(source))  # all in one batch
    (batch,) = annotated_batches(source, data, opened.config.runtime, share, crops=1)
    images = jnp.asarray(batch["image"][:, 0])
    maps = np.asarray(forward(trained.network, trained.variables, images).maps)
    assert maps.shape[1:3] == (8, 8)  # of cells that see what is around the pixels 0, 4, …, 28
    for name, of_image, parts in zip(batch["name"], maps, batch["parts"], strict=True):
        mass = np.maximum(of_image[:, :, of_image.mean((0, 1)).argmax()], 0)
        highest = sorted(np.ndindex(8, 8), key=lambda cell: -mass[cell])
        region: list[tuple[int, ...]] = []
        while sum(mass[cell] for cell in region) < 0.8 * mass.sum():
            region.append(highest.pop(0))
        seen = [
            (min(int(y + 2) // 4, 7), min(int(x + 2) // 4, 7)) for x, y, visible in parts if visible
        ]
        if mass.any():
            found[name] = sum(cell in region for cell in seen)
    assert 0 < sum(found.values()) < batch["parts"][:, :, 2].sum()
    return found


# --- Bad input: one line, and nothing is written ---


def change_json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(workdir: Path) -> None:
        path = workdir / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return apply


def with_classes(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """As a run of an older version, of which data.json has no digest of the names."""

    def apply(workdir: Path) -> None:
        change_json("classes.json", change)(workdir)
        change_json("data.json", lambda data: {**data, "class_names": ""})(workdir)

    return apply


def with_fields(**fields: Any) -> Callable[[Path], None]:
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return change_json("config.json", lambda found: {**found, **named})


def without_checkpoints(workdir: Path) -> None:
    shutil.rmtree(workdir / "checkpoints")


def of_another_step(workdir: Path) -> None:
    shutil.move(workdir / "checkpoints" / "13", workdir / "checkpoints" / "17")


def not_json(workdir: Path) -> None:
    (workdir / "config.json").write_text("{")


def damaged(workdir: Path) -> None:
    for path in (workdir / "checkpoints" / str(STEPS) / "default").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:500])


BAD: dict[str, tuple[Callable[[Path], None], list[str], str]] = {
    "no folder": (
        shutil.rmtree,
        [],
        r"--workdir=\S+: no such folder; .* is empty; name the workdir of a run",
    ),
    "no run": (
        lambda workdir: (workdir / "config.json").unlink(),
        [],
        r"--workdir=\S+ is no workdir of a run: it has no config.json",
    ),
    "no checkpoint": (without_checkpoints, [], r"--workdir=\S+ holds no checkpoint yet: train"),
    "no such step": (
        lambda _: None,
        ["--step=4"],
        r"--step=4: \S+ holds the checkpoints of the steps 13, 20; without --step the last of them",
    ),
    "of another step": (
        of_another_step,
        ["--step=17"],
        r"checkpoints/17 is not of the network .*: it was saved at another step than its name says",
    ),
    "damaged checkpoint": (damaged, [], r"the checkpoint \S+/20 cannot be read \(\w+\): it is dam"),
    "no JSON": (
        not_json,
        [],
        r"config.json cannot be read \(Expecting.*\): it describes the run",
    ),
    "no names": (
        change_json("classes.json", lambda _: []),
        [],
        r"classes.json cannot be read \(it holds \[\], not the names of classes\)",
    ),
    "no data": (
        change_json("data.json", lambda _: "images"),
        [],
        r"data.json cannot be read \('images' names no data set, split and number of examples\)",
    ),
    "fields of a later version": (
        with_fields(loss__temperature=2.0, shoes="red"),
        [],
        r"config.json has fields that this version does not know, loss.temperature, shoes: use the ver",
    ),
    "a value that cannot be": (
        with_fields(network__depth=51),
        [],
        r"--workdir=\S+: config.json: --config.network.depth=51: must be one of",
    ),
    "another width": (
        with_fields(network__width=0.25),
        [],
        r"is not of the network that config.json and classes.json of \S+ describe: params/classifier/"
        r"kernel has the shape \[1, 1, 8, 4\] and would have \[1, 1, 16, 4\];.* put back its own",
    ),
    "another depth": (
        with_fields(network__depth=34),
        [],
        r"backbone/\S+ is in the config alone",
    ),
    "data set is gone": (
        with_fields(data__name="cub"),
        ["--data_dir=/nowhere"],
        r"data set 'cub' is not prepared in /nowhere: run python -m fgr_jax.prepare with .* "
        "--config.data.data_dir=FOLDER",
    ),
    "other classes": (
        with_classes(lambda names: [*names[:3], "elsewhere"]),
        [],
        r"the data set synthetic/tiny/1.0.0 has other classes than the run in \S+ was trained on",
    ),
    "no crops": (lambda _: None, ["--crops=six"], r"crops.*should be one of"),
    "no batch": (lambda _: None, ["--batch_size=0"], r"batch_size"),
    "no job": (lambda _: None, ["--process_id=1"], r"go together: give all three"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line(workdir: Path, fault: str) -> None:
    change, options, message = BAD[fault]
    change(workdir)
    with pytest.raises(UserError, match=message) as raised:
        run(workdir, *options)
    assert "\n" not in str(raised.value)
    assert not (workdir / "evaluation").exists()


def test_an_older_config_lacks_fields(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_json(
        "config.json", lambda found: {k: v for k, v in found.items() if k != "loss.gce_fade"}
    )(workdir)
    assert run(workdir) == 0
    assert "lacks loss.gce_fade: they have the defaults" in capsys.readouterr().out


def test_a_data_set_that_has_changed(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_json("data.json", lambda found: {**found, "examples": 51})(workdir)
    assert run(workdir) == 0
    assert "no longer the one that the run was trained on" in capsys.readouterr().out


def test_corrupt_images_stop_or_are_left_out(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ExampleSource.__getitem__

    def faulty(self: ExampleSource, index: Any) -> Example:
        example = plain(self, index)
        if int(index) not in (3, 26):
            return example
        return Example(example.encoded_image[:99], example.label, f"broken-{index}.jpg")

    monkeypatch.setattr(ExampleSource, "__getitem__", faulty)
    both = r"split test: broken-3.jpg is truncated, broken-26.jpg is truncated; replace the files"
    with pytest.raises(UserError, match=both):
        run(workdir)
    assert not (workdir / "evaluation").exists()
    with_fields(data__corrupt_images="skip")(workdir)
    assert run(workdir) == 0
    assert "broken-26.jpg is truncated; left out" in capsys.readouterr().out
    folder = workdir / "evaluation" / f"step-{STEPS}-one"
    results = json.loads((folder / "results.json").read_text())
    assert results["images"] == 25
    assert results["corrupt"] == ["broken-3.jpg is truncated", "broken-26.jpg is truncated"]
    assert not [row for row in rows_of(folder / "predictions.csv") if "broken" in row["file_name"]]


def test_as_a_command(workdir: Path) -> None:
    done = subprocess.run(command(workdir), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "the worst classes" in done.stdout


@pytest.mark.long
def test_two_processes(workdir: Path) -> None:
    def start(workdir: Path, *options: str) -> tuple[list[int], list[str]]:
        job = [f"--coordinator=localhost:{free_port()}", "--process_count=2"]
        started = [
            subprocess.Popen(
                command(workdir, *job, f"--process_id={index}", *options),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for index in (0, 1)
        ]
        printed = [process.communicate(timeout=300)[0] for process in started]
        return [process.returncode for process in started], printed

    folder = workdir / "evaluation" / f"step-{STEPS}-five"
    assert run(workdir, "--crops=five") == 0
    alone = rows_of(folder / "predictions.csv")
    shutil.rmtree(folder)
    statuses, printed = start(workdir, "--crops=five")
    assert statuses == [0, 0], printed
    assert [line for line in printed[1].splitlines() if "[Gloo]" not in line] == []
    assert "the worst classes" in printed[0]
    together = rows_of(folder / "predictions.csv")
    for one, other in zip(alone, together, strict=True):
        for name in (
            "file_name",
            "label",
            "predicted",
            "predicted_2",
            "predicted_3",
            "predicted_4",
        ):
            assert one[name] == other[name]
        assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=2e-6)
    statuses, printed = start(workdir, "--step=5")
    assert statuses == [1, 1]
    assert "error: --step=5: " in printed[0]
    assert "error: process 0: --step=5: " in printed[1]
    assert all("Traceback" not in text for text in printed)


@pytest.mark.long
def test_a_run_in_a_bucket(
    workdir: Path,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = epath.Path(f"{bucket}/runs/evaluated")
    for path in sorted(workdir.rglob("*")):
        if path.is_file() and path.name != "lock":
            epath.Path(path).copy(there / path.relative_to(workdir).as_posix(), overwrite=True)

    def slowly(*arguments: Any, **options: Any) -> Any:
        """Meanwhile the run is trained on."""
        (there / "metrics.jsonl").write_text("newer")
        return predict_split(*arguments, **options)

    monkeypatch.setattr(evaluated_run, "predict_split", slowly)
    assert run(str(there)) == 0
    monkeypatch.undo()
    assert run(workdir) == 0
    here, results = (folder / "evaluation" / f"step-{STEPS}-one" for folder in (workdir, there))
    assert {path.name for path in results.iterdir()} == set(FILES)
    for name in ("per_class.csv", "confusions.csv"):
        assert (results / name).read_bytes() == (here / name).read_bytes()
    assert (there / "metrics.jsonl").read_text() == "newer"


def test_a_network_without_maps(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluated and reported without measures of maps; heat maps of it are refused."""
    config = small_config(data_dir)
    config.duration, config.network.head = "1 epoch", POOLED_HEAD
    train(config, Workdir.open(tmp_path / "run"), QUIET)
    assert run(tmp_path / "run", "--crops=five") == 0
    assert "The network has no class activation maps" in capsys.readouterr().out
    folder = tmp_path / "run" / "evaluation" / "step-7-five"
    results = json.loads((folder / "results.json").read_text())
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert results["center_crop"]["top1"] == last["top1"]
    assert "maps" not in results
    rows = rows_of(folder / "predictions.csv")
    assert len(rows) == 27
    assert not [name for name in rows[0] if "map" in name]

    assert report.main(["report", f"--workdir={tmp_path}/run"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "no class activation maps, so this page has no heat maps" in page
    assert ">image<" in page
    assert "map of" not in page

    image = tmp_path / "image.png"
    assert cv2.imwrite(str(image), np.full((40, 40, 3), 99, np.uint8))
    with pytest.raises(UserError, match=r"--heatmaps=heat: the network of \S+ has no class activ"):
        predict.main(["predict", f"--workdir={tmp_path}/run", str(image), "--heatmaps=heat"])
    assert predict.main(["predict", f"--workdir={tmp_path}/run", str(image)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{image}: ")


def test_a_run_on_pooled_features_has_maps_of_all_cells(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their average over a square is the map that it was trained on."""
    config = small_config(data_dir)
    config.duration, config.network.pool = "1 epoch", 4
    config.data.resize, config.data.crop = 68, 64
    config.diversification.fit_to_maps = True  # which turns the block off on maps of one cell
    train(config, Workdir.open(tmp_path / "run"), QUIET)
    opened = open_run(Workdir.open(tmp_path / "run"))
    trained = restore(opened, None, data_mesh())
    images = jax.random.bits(jax.random.key(0), (3, 64, 64, 3), np.uint8)
    full = forward(trained.network, trained.variables, images)
    pooled = forward(build_network(opened.config, 4), trained.variables, images)
    assert full.maps is not None
    assert pooled.maps is not None
    assert (full.maps.shape, pooled.maps.shape) == ((3, 4, 4, 4), (3, 1, 1, 4))
    np.testing.assert_allclose(full.maps.mean((1, 2)), pooled.maps[:, 0, 0], atol=1e-5)
    np.testing.assert_allclose(full.scores, pooled.scores, atol=1e-5)
    np.testing.assert_allclose(full.features, pooled.features, atol=1e-5)

    assert run(tmp_path / "run") == 0
    assert "trained without the block" in capsys.readouterr().out
    maps = json.loads((tmp_path / "run/evaluation/step-7-one/results.json").read_text())["maps"]
    assert 0 < maps["predicted_class"]["relative_entropy"] < 1

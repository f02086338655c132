"""Training on features against training on images in the same views, and whole runs on features."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from feature_runs import FeatureRun, feature_config
from networks import by_path
from tiny_run import QUIET, ROOT, config_flags

from fgr_jax.calendar import Calendar
from fgr_jax.data import images
from fgr_jax.data.balance import BalancedOrder
from fgr_jax.data.batch import TrainingBatch
from fgr_jax.data.pipeline import Share, evaluation_batches, shuffled, training_batches
from fgr_jax.distributed import data_mesh, rows_to_devices
from fgr_jax.features import reading
from fgr_jax.features.opening import features_dir
from fgr_jax.features.views import fixed_views, view_at
from fgr_jax.files import json_lines
from fgr_jax.runs import checkpoints
from fgr_jax.runs.workdir import PROVENANCE, Workdir
from fgr_jax.terminal import Terminal
from fgr_jax.train.evaluation import averages
from fgr_jax.train.loop import train
from fgr_jax.train.objective import build_objective
from fgr_jax.train.optimizer import momentum_sgd
from fgr_jax.train.step import build_steps

STEPS = range(10)  # of 8 images: into the second epoch of 52

# Runs a command, with pauses around every file of features, which are small.
SLOWLY = """
import runpy, sys, time
from fgr_jax.features import description, store
description.SHARD_BYTES = 1
write = store.Store.write
def slowly(*arguments):
    time.sleep(0.2)
    write(*arguments)
store.Store.write = slowly
sys.argv = ["main", *sys.argv[1:]]
runpy.run_module("fgr_jax.main", run_name="__main__", alter_sys=True)
"""


@pytest.fixture
def own_dir(data_dir: Path, tmp_path: Path) -> Path:
    shutil.copytree(data_dir / "synthetic", tmp_path / "data" / "synthetic")
    return tmp_path / "data"


def image_batches(run: FeatureRun, share: Share) -> list[TrainingBatch]:
    """The batches of STEPS in the views that training on features takes, made one by one."""
    data, source = run.config.data, run.sources[0]
    order = shuffled(len(source), share, seed=run.config.seed, steps=STEPS)
    rows = []
    for position in range(STEPS.stop * share.batch_size):
        image = order[position]
        view = view_at(run.config.seed, data.views, image, position // len(source))
        fixed, example = fixed_views(data, data.views, image), source[image]
        decoded = images.decode(example.encoded_image)
        (cut,) = images.crops_at(decoded, data, [fixed.places[view]])
        rows.append((cut, example.label, True, fixed.symmetries[view]))
    size, kinds = share.batch_size, (np.uint8, np.int32, np.bool_, np.int32)
    names = ("image", "label", "mask", "symmetry")
    return [
        {  # type: ignore[misc]
            name: np.array([row[at] for row in rows[step * size : (step + 1) * size]], kind)
            for at, (name, kind) in enumerate(zip(names, kinds, strict=True))
        }
        for step in STEPS
    ]


# With float16 in small steps: large ones amplify the rounding of the features.
@pytest.mark.parametrize(
    ("dtype", "rate", "tolerance"), [("float32", 1e-2, 1e-6), ("float16", 1e-4, 5e-3)]
)
def test_features_train_as_images_in_the_same_views(
    own_dir: Path, dtype: str, rate: float, tolerance: float
) -> None:
    config = feature_config(own_dir)
    config.data.features_dtype, config.network.frozen = dtype, "layer2"
    config.loss.gce_start = "0 steps"
    run, share, mesh = FeatureRun.of(config), Share(8), data_mesh(jax.devices()[:1])
    features, of_test = run.open()
    optimizer = momentum_sgd(lambda _: jax.numpy.float32(rate), momentum=0.9, weight_decay=1e-4)
    objective = build_objective(config, Calendar.of(config, 52), mesh)
    steps = build_steps(config, run.network, objective, optimizer, mesh)
    of_features = list(
        reading.training_batches(features, config.runtime, share, seed=config.seed, steps=STEPS)
    )
    of_images = image_batches(run, share)
    # The order of the examples is that of every other run with this seed.
    usual = training_batches(
        run.sources[0], config.data, config.runtime, share, seed=config.seed, steps=STEPS
    )
    assert [each["label"].tolist() for each in of_features] == [
        each["label"].tolist() for each in usual
    ]
    losses: list[list[float]] = []
    states = []
    for batches in (of_features, of_images):
        state = steps.init().replace(**jax.tree.map(jax.numpy.array, run.variables))
        losses.append([])
        for batch in batches:
            state, record = steps.train(state, rows_to_devices(mesh, dict(batch)))
            losses[-1].append(float(record.loss))
        states.append(state)
    assert len(set(losses[0])) == len(STEPS)
    np.testing.assert_allclose(losses[0], losses[1], rtol=tolerance)
    ours, theirs = (by_path(state.variables) for state in states)
    for path, value in ours.items():
        np.testing.assert_allclose(value, theirs[path], rtol=50 * tolerance, atol=5 * tolerance)
    # Evaluated on features and on images.
    totals = []
    for evaluated in (
        reading.evaluation_batches(of_test, config.runtime, share),
        evaluation_batches(run.sources[1], config.data, config.runtime, share, rounds=None),
    ):
        total = steps.zeros()
        for _ in range(2 * 4):  # twice
            total, _ = steps.test(states[0], rows_to_devices(mesh, next(evaluated)), total)
        totals.append(averages(total, expected=54))
    assert totals[0]["examples"] == totals[1]["examples"] == 54
    assert totals[0]["loss"] == pytest.approx(totals[1]["loss"], rel=10 * tolerance)
    # A run can be told by the fingerprints of its features.
    first = rows_to_devices(mesh, of_features[0])
    state, record = steps.train(states[0], first)
    digests = steps.fingerprint(state, first, record)
    other = rows_to_devices(mesh, {**of_features[0], "features": of_features[1]["features"]})
    assert (steps.fingerprint(state, other, record)["images"] != digests["images"]).any()


def test_two_processes_read_halves_of_the_batches(own_dir: Path) -> None:
    run = FeatureRun.of(feature_config(own_dir))
    train_features, test_features = run.open()
    runtime, seed = run.config.runtime, 3
    whole, *halves = (
        list(reading.training_batches(train_features, runtime, share, seed=seed, steps=range(5, 9)))
        for share in (Share(8), Share(8, 0, 2), Share(8, 1, 2))
    )
    assert len(whole) == 4
    for batch, first, second in zip(whole, *halves, strict=True):
        for name, value in batch.items():
            both = np.concatenate([first[name], second[name]])
            assert value.tobytes() == both.tobytes(), name
    # A resumed run reads the batches that the uninterrupted one would have read.
    later = reading.training_batches(
        train_features, runtime, Share(8), seed=seed, steps=range(8, 9)
    )
    assert next(later)["features"].tobytes() == whole[3]["features"].tobytes()
    # The balanced order is that of training on images, too.
    labels = np.arange(52) % 13 // 6
    balanced = list(
        reading.training_batches(
            train_features,
            runtime,
            Share(8),
            seed=seed,
            steps=range(5, 20),
            balance=0.8,
            labels=labels,
        )
    )
    of_images = training_batches(
        run.sources[0],
        dataclasses.replace(run.config.data, balance=0.8),
        runtime,
        Share(8),
        seed=seed,
        steps=range(5, 20),
        labels=labels,
    )
    assert [each["label"].tolist() for each in balanced] == [
        each["label"].tolist() for each in of_images
    ]
    order = BalancedOrder(labels, 0.8, seed=seed, epochs=4)
    visits = [order[position] for position in range(40, 160)]
    rows = [(visit.example, view_at(seed, 3, *visit)) for visit in visits]
    whole_features = train_features.batch(rows)["features"].tobytes()
    assert b"".join(each["features"].tobytes() for each in balanced) == whole_features
    masks = [
        next(reading.evaluation_batches(test_features, runtime, share))["mask"].tolist()
        for share in (Share(32), Share(32, 0, 2), Share(32, 1, 2))
    ]
    assert masks[0] == masks[1] + masks[2] == [True] * 27 + [False] * 5


def test_runs_share_features_and_resume_bit_for_bit(
    own_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = feature_config(own_dir)
    config.duration, config.evaluate_every, config.checkpoint_every = (
        "9 steps",
        "9 steps",
        "5 steps",
    )
    config.runtime.fingerprint_every = "1 steps"
    whole, folder = tmp_path / "whole", tmp_path / "resumed"
    train(config, Workdir.open(whole), QUIET)
    made = {path: path.stat().st_mtime_ns for path in features_dir(str(own_dir)).rglob("*.npy")}
    assert len(made) == 2
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints" / "9")
    config.runtime.decode_threads = 1
    outcome = train(config, Workdir.open(folder), QUIET)
    assert (outcome.first_step, outcome.step) == (5, 9)
    for name in ("metrics.jsonl", "fingerprints.jsonl"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    state, again = (
        by_path(checkpoints.read(Workdir.open(run).checkpoints, 9)) for run in (whole, folder)
    )
    assert all(again[path].tobytes() == state[path].tobytes() for path in state)
    # Another run on the same frozen weights, with another seed, takes the same features.
    config.seed, config.pretrained = 5, str(whole)
    train(config, Workdir.open(tmp_path / "other"), Terminal())
    weights = f"weights   {whole}, which started from random weights"
    assert weights in capsys.readouterr().out.splitlines()
    of_weights = [
        [start.get("weights") for start in json_lines.read(run / PROVENANCE)]
        for run in (whole, folder, tmp_path / "other")
    ]
    random = "random weights"
    expected = [[random], [random, None], [f"{whole}, which started from {random}"]]
    assert of_weights == expected
    assert made == {path: path.stat().st_mtime_ns for path in made}
    assert set(made) == set(features_dir(str(own_dir)).rglob("*.npy"))


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_signal_while_features_are_computed(
    own_dir: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """It ends with one line; what is complete is kept, and the same command continues."""
    config = feature_config(own_dir)
    config.duration = "3 steps"
    flags = [*config_flags(config), f"--workdir={tmp_path}/run"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", SLOWLY, *flags],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    process, folder = start(), features_dir(str(own_dir))
    while len(list(folder.glob("*/0*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + number
    assert errors.splitlines() == [f"stopped by {number.name}"]
    (line,) = (line for line in output.splitlines() if line.startswith("features"))
    assert "52 × 3 views of 2×2×16, 39.9 kB in" in line
    assert line.endswith(", about 1 minute")
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/0*.json")}
    process = start()
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert times == {path: path.stat().st_mtime_ns for path in times}
    records: list[Any] = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert records[-1]["examples"] == 27
    assert not any(character in output + errors for character in "\r\x1b")

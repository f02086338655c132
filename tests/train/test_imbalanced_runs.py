"""Runs whose classes are made up for: by the order of their images, or in the loss."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colored_images import write_classes
from sklearn.metrics import balanced_accuracy_score
from tiny_run import QUIET, small_config

from fgr_jax.config import Config, Data
from fgr_jax.data.source import open_splits
from fgr_jax.runs import checkpoints
from fgr_jax.runs.comparison import compare
from fgr_jax.runs.logs import read_predictions, write_predictions
from fgr_jax.runs.summary import print_summary
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal
from fgr_jax.train import loop
from fgr_jax.train.objective import build_objective

COUNTS = {"blue": 24, "green": 5, "red": 3}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_classes(folder, "train", COUNTS)
    write_classes(folder, "test", {"blue": 8, "green": 3, "red": 2}, seed=1)
    return folder


@pytest.fixture
def config(images: Path) -> Config:
    config = small_config(images / "tfds")
    config.data.name, config.data.folder = "folder", str(images)
    config.data.data_dir = str(images.parent / "tfds")
    config.duration = config.evaluate_every = "6 steps"
    config.checkpoint_every = "4 steps"
    config.runtime.fingerprint_every = "1 steps"
    config.runtime.devices = 1
    return config


def train(config: Config, workdir: Path) -> Path:
    loop.train(config, Workdir.open(workdir), QUIET)
    return workdir


def test_a_balanced_run_on_any_devices_and_resumed(config: Config, tmp_path: Path) -> None:
    config.data.balance = 1.0
    one = train(config, tmp_path / "one")
    config.runtime.devices, config.runtime.decode_threads = 8, 1
    eight = train(config, tmp_path / "eight")
    parted = compare(Workdir.open(one), Workdir.open(eight)).parted
    assert not {"images", "labels"} & parted.keys()
    config.runtime.devices = 1
    resumed = tmp_path / "resumed"
    shutil.copytree(one, resumed)
    shutil.rmtree(resumed / "checkpoints" / "6")
    assert checkpoints.latest_step(Workdir.open(resumed).checkpoints) == 4
    train(config, resumed)
    for name in ("fingerprints.jsonl", "metrics.jsonl", "test_predictions.csv"):
        assert (resumed / name).read_bytes() == (one / name).read_bytes()
    config.data.balance = 0.0
    natural = train(config, tmp_path / "natural")
    assert compare(Workdir.open(one), Workdir.open(natural)).parted["labels"] == 1


@pytest.mark.parametrize("field", ["logit_adjustment", "class_weights"])
def test_the_objective_is_given_the_classes_of_the_training_split(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    setattr(config.loss, field, 1.0)
    given: list[Any] = []

    def noting(*arguments: Any) -> Any:
        given.append(arguments)
        return build_objective(*arguments)

    monkeypatch.setattr(loop, "build_objective", noting)
    workdir = train(config, tmp_path / "run")
    assert given[0][3].tolist() == list(COUNTS.values())
    # A loss without the adjustment differs from the first step on.
    setattr(config.loss, field, 0.0)
    plain = train(config, tmp_path / "plain")
    assert compare(Workdir.open(workdir), Workdir.open(plain)).parted["loss"] == 1
    assert given[1][3] is None


def test_the_labels_of_a_fold(config: Config, images: Path) -> None:
    data = Data(name="folder", folder=str(images), data_dir=config.data.data_dir, fold="2/4")
    train_source, fold = open_splits(data, QUIET)
    for source in (train_source, fold):
        labels = source.labels(QUIET)
        assert labels.tolist() == [source[index].label for index in range(len(source))]
    assert len(train_source.labels(QUIET)) == 24


def test_the_end_of_a_run_says_which_classes_are_never_recognized(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workdir = train(config, tmp_path / "run")
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    labels, predicted = read_predictions(workdir).T
    assert last["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))

    def printed(labels: np.ndarray, predicted: np.ndarray) -> str:
        write_predictions(workdir, np.stack([labels, predicted], axis=1).astype(np.int32))
        print_summary(Workdir.open(workdir), 3, "", Terminal())
        return capsys.readouterr().out

    nothing = np.zeros_like(labels)
    assert "2 of 3 classes are never recognized: green, red." in printed(labels, nothing)
    assert "recognized" not in printed(labels, labels)
    # A corrupt image has no label, and takes no part in it.
    assert "recognized" not in printed(np.where(labels > 0, -1, labels), nothing)

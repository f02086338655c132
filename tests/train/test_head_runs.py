"""Whole runs with the heads of other systems: from scratch, and on cached features of another run."""

from pathlib import Path

import jax
import numpy as np
import pytest
from served import an_image
from small_backbones import STAGED_BACKBONE
from starlette.testclient import TestClient
from tiny_run import QUIET, tiny_config

from fgr_jax.config import Config
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.models.heads import HEADS
from fgr_jax.models.heads.interface import check_training
from fgr_jax.runs.comparison import compare
from fgr_jax.runs.logs import read_metrics
from fgr_jax.runs.workdir import Workdir
from fgr_jax.serve.__main__ import _tell_of_missing_maps
from fgr_jax.serve.answers import Writer
from fgr_jax.serve.app import build_app
from fgr_jax.serve.classifier import Classifier
from fgr_jax.terminal import Terminal
from fgr_jax.train.loop import train


def config_of(data_dir: Path, head: str) -> Config:
    config = tiny_config(data_dir)
    config.network.backbone, config.network.head = STAGED_BACKBONE, head
    config.optimizer.learning_rate, config.duration = 0.003, "2 epochs"
    return config


@pytest.fixture(scope="module")
def from_scratch(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of DFL-CNN, with GCE in its second epoch."""
    workdir = tmp_path_factory.mktemp("heads") / "dfl_cnn"
    assert train(config_of(data_dir, "dfl_cnn"), Workdir.open(workdir), QUIET).step == 13
    return workdir


def losses(workdir: Path) -> list[float]:
    return [record["loss"] for record in read_metrics(workdir) if record["split"] == "train"]


def test_the_loss_is_that_of_all_scores_of_the_head(from_scratch: Path) -> None:
    """2.1 times that of one, where nothing is told apart: ln 4, and ln 3 with GCE."""
    first, second = losses(from_scratch)
    assert 1.5 * np.log(4) < first < 3 * np.log(4)
    assert second < first


@pytest.mark.parametrize(
    ("head", "frozen"),
    [
        ("isqrt_cov", "backbone"),
        ("dfl_cnn", "two"),
        ("dfl_cnn", "backbone"),
        ("mamc_pooled", "backbone"),
    ],
)
def test_a_head_on_cached_features_of_another_run(
    head: str, frozen: str, data_dir: Path, from_scratch: Path, tmp_path: Path
) -> None:
    """The backbone of a run is taken, whatever its head, and trained from any stage on."""
    config = config_of(data_dir, head)
    config.pretrained, config.network.frozen = str(from_scratch), frozen
    config.data.views, config.data.pairs = 1, head == "mamc_pooled"
    assert train(config, Workdir.open(tmp_path), QUIET).step == 13
    assert np.isfinite(losses(tmp_path)).all()
    mesh = data_mesh(jax.devices()[:1])
    theirs, ours = (
        restore(open_run(Workdir.open(each)), None, mesh).variables["params"]
        for each in (from_scratch, tmp_path)
    )
    for name, is_frozen in {"one_conv0": True, "three_conv0": frozen == "backbone"}.items():
        kernels = (each["backbone"][name]["kernel"] for each in (theirs, ours))
        assert np.array_equal(*kernels) == is_frozen


def test_a_server_without_heat_maps_says_so(
    from_scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = open_run(Workdir.open(from_scratch))
    mesh = data_mesh(jax.devices()[:1])
    trained = restore(run, None, mesh)
    _tell_of_missing_maps(trained, run.config.data.crop, Terminal())
    assert "no class activation maps, so answers have no heat maps" in capsys.readouterr().out
    classifier = Classifier(trained, mesh, crop=run.config.data.crop, top=2, largest=1)
    writer = Writer(run, trained, None)
    limits = {"top": 2, "nearest": 0, "max_bytes": 10**6}
    app = build_app(classifier, writer, **limits, host="127.0.0.1")
    with TestClient(app, base_url="http://localhost") as client:
        body = client.post(
            "/predict?heatmaps=1", content=an_image(0), headers={"content-type": "image/jpeg"}
        ).json()
    assert [sorted(each) for each in body["predictions"]] == 2 * [["class", "probability"]]
    assert body["image"].startswith("data:image/jpeg")


@pytest.mark.long
def test_a_resumed_run_equals_an_uninterrupted_one(data_dir: Path, tmp_path: Path) -> None:
    """TASN's draws a map for each image and step."""
    config = config_of(data_dir, "tasn")
    config.runtime.fingerprint_every, config.duration = "1 steps", "3 steps"
    whole, parts = Workdir.open(tmp_path / "whole"), Workdir.open(tmp_path / "parts")
    train(config, whole, QUIET)
    config.duration = "2 steps"
    train(config, parts, QUIET)
    # As if the first run had been stopped there.
    (tmp_path / "parts" / "lock").unlink()
    recorded = tmp_path / "parts" / "config.json"
    recorded.write_text(recorded.read_text().replace('"2 steps"', '"3 steps"'))
    config.duration = "3 steps"
    assert train(config, parts, QUIET).first_step == 2
    comparison = compare(whole, parts)
    assert comparison.steps == [1, 2, 3]
    assert not comparison.parted


@pytest.mark.parametrize("head", ["dfl_cnn", "nts", "tasn"])
def test_center_loss_would_count_for_each_score(head: str, data_dir: Path, tmp_path: Path) -> None:
    config = config_of(data_dir, head)
    config.loss.center, config.loss.gce_start = 0.003, "never"
    with pytest.raises(UserError, match=rf"center=0\.003: must be 0 with network\.head={head}: "):
        train(config, Workdir.open(tmp_path), QUIET)


@pytest.mark.parametrize(("section", "name"), [("optimizer", "accumulate"), ("data", "cutmix")])
def test_the_pairs_of_mamc_are_of_the_whole_batch(section: str, name: str, data_dir: Path) -> None:
    config = config_of(data_dir, "mamc_pooled")
    head = HEADS["mamc_pooled"](config.network, 4)
    with pytest.raises(UserError, match=r"pairs=False: must be True with network\.head=mamc_po"):
        check_training(config, head)
    config.data.pairs = True
    check_training(config, head)
    setattr(getattr(config, section), name, 2)
    with pytest.raises(UserError, match=r"head='mamc_pooled': must be another with .*: its pairs"):
        check_training(config, head)

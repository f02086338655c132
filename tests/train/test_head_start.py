"""Weights of a head that are computed from features of the training images at the start of a run."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from feature_runs import FeatureRun
from saved_runs import saved
from small_backbone import SMALL_BACKBONE
from small_backbones import STAGED_BACKBONE
from tiny_run import QUIET, tiny_config

from fgr_jax import distributed
from fgr_jax.config import Config, validate
from fgr_jax.data.pipeline import Share, evaluation_batches
from fgr_jax.errors import UserError
from fgr_jax.features.opening import features_dir
from fgr_jax.features.reading import Features
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.models.network import Network, build_network
from fgr_jax.random_streams import Stream, stream_seed
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal
from fgr_jax.train.head_start import head_from_features
from fgr_jax.train.loop import train


@pytest.fixture(scope="module")
def config(data_dir: Path) -> Config:
    """DFL-CNN on a backbone of three stages, of which two are frozen and cached."""
    config = tiny_config(data_dir)
    config.network.backbone, config.network.head = STAGED_BACKBONE, "dfl_cnn"
    config.network.frozen, config.data.views = "two", 2
    config.network.head_from_features, config.data.features_dtype = True, "float32"
    return config


@pytest.fixture(scope="module")
def run(config: Config) -> FeatureRun:
    return FeatureRun.of(config)


@pytest.fixture(scope="module")
def cached(run: FeatureRun) -> Features:
    return run.open()[0]


def computed(
    run: FeatureRun, cached: Features | None = None, devices: int = 1, seed: int = 0
) -> Any:
    """The parameters of the head."""
    mesh = distributed.data_mesh(jax.devices()[:devices])
    variables = jax.device_put(jax.device_get(run.variables), distributed.replicated(mesh))
    config = dataclasses.replace(run.config, seed=seed)
    labels = run.sources[0].labels(QUIET)
    arguments = (config, run.network, variables, run.sources[0], labels, cached, mesh, QUIET)
    return jax.device_get(head_from_features(*arguments)["params"])


def test_the_head_is_given_the_center_crops_of_each_class(run: FeatureRun) -> None:
    """As by hand, of all images at once."""
    found = computed(run)["classifier"]["filters"]
    network: Any = run.network
    head = network.classifier
    share = Share(len(run.sources[0]))
    (batch,) = evaluation_batches(run.sources[0], run.config.data, run.config.runtime, share)
    x = network.normalize(jnp.asarray(batch["image"]))
    features, more = network.apply(run.variables, x, train=False, method=Network.head_input)
    kept, sums = head.observe(features, batch["mask"], **more)
    by_class = {}
    for label in range(4):
        generator = np.random.default_rng([stream_seed(0, Stream.HEAD_START), label])
        of_class = jax.tree.map(lambda leaf, i=batch["label"] == label: np.asarray(leaf)[i], kept)
        by_class[label] = head.for_class(of_class, generator)
    sums = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), sums)
    wanted = head.initialized(run.variables["params"]["classifier"], by_class, sums)["filters"]
    np.testing.assert_allclose(found["kernel"], wanted["kernel"], rtol=1e-3, atol=1e-4)
    assert not found["bias"].any()
    other = computed(run, seed=1)["classifier"]["filters"]["kernel"]
    assert not np.allclose(other, found["kernel"], atol=1e-2)


def test_eight_devices_compute_what_one_does_and_the_rest_is_left_alone(
    run: FeatureRun, cached: Features
) -> None:
    """From images and from cached features, of which the first view is another crop."""
    for features in (None, cached):
        one, eight = (computed(run, features, devices) for devices in (1, 8))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, eight
        )
        kernel = one["classifier"]["filters"].pop("kernel")
        np.testing.assert_allclose(np.linalg.norm(kernel, axis=2), 1, rtol=1e-5)
        del one["classifier"]["filters"]
        before = jax.device_get(run.variables["params"])
        del before["classifier"]["filters"]
        jax.tree.map(np.testing.assert_array_equal, one, before)
    # A run with one view, or without the field, has the same first view.
    data = dataclasses.replace(run.config.data, views=1)
    section = dataclasses.replace(run.config.network, head_from_features=False)
    one_view = dataclasses.replace(run.config, data=data, network=section)
    first = FeatureRun.of(one_view).open()[0]
    again = computed(run, first)["classifier"]["filters"]["kernel"]
    assert again.tobytes() == kernel.tobytes()
    folders = set(features_dir(run.config.data.data_dir).iterdir())
    FeatureRun.of(dataclasses.replace(one_view, data=run.config.data)).open()
    assert set(features_dir(run.config.data.data_dir).iterdir()) == folders
    assert not np.allclose(computed(run)["classifier"]["filters"]["kernel"], kernel, atol=1e-2)


def test_a_run_starts_from_them_once(
    config: Config, cached: Features, run: FeatureRun, tmp_path: Path, capsys: Any
) -> None:
    """A learning rate of 0 leaves the weights. A run that is resumed, or that starts from this one, has
    them already.
    """
    of_another = dataclasses.replace(
        config.network, head="cam", frozen="", head_from_features=False
    )
    data = dataclasses.replace(config.data, views=0)
    start = dataclasses.replace(config, network=of_another, data=data)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=0.0)
    began = dataclasses.replace(
        config, pretrained=str(saved(start, tmp_path / "start")), optimizer=optimizer
    )
    began.duration = "2 steps"
    validate(began)
    train(began, Workdir.open(tmp_path / "run"), Terminal())
    assert "initialized from features of 52 training images" in capsys.readouterr().out
    trained = restore(open_run(Workdir.open(tmp_path / "run")), None, distributed.data_mesh())
    filters = jax.device_get(trained.variables["params"]["classifier"]["filters"])
    # The cached features are those of the saved run's weights, which `run` has too.
    wanted = computed(run, cached, devices=8)["classifier"]["filters"]
    jax.tree.map(np.testing.assert_array_equal, filters, wanted)

    (tmp_path / "run" / "lock").unlink()
    recorded = tmp_path / "run" / "config.json"
    recorded.write_text(recorded.read_text().replace('"2 steps"', '"3 steps"'))
    began.duration = "3 steps"
    assert train(began, Workdir.open(tmp_path / "run"), Terminal()).first_step == 2
    assert "head  " not in capsys.readouterr().out
    began.pretrained = str(tmp_path / "run")
    train(began, Workdir.open(tmp_path / "another"), Terminal())
    assert f"head      that of {began.pretrained}, so nothing" in capsys.readouterr().out


def test_a_feature_that_is_not_finite_is_an_error(run: FeatureRun) -> None:
    damaged = jax.tree.map(lambda leaf: leaf * np.nan, run.variables)
    broken = dataclasses.replace(run, variables=damaged)
    broken.config = dataclasses.replace(run.config, pretrained="weights.pth")
    with pytest.raises(UserError, match=r"^--config\.pretrained=weights\.pth: a feature of these"):
        computed(broken)


def test_what_cannot_be_computed_is_refused(config: Config) -> None:
    with pytest.raises(UserError, match=r"head_from_features=True: must be False where pretrained"):
        validate(config)
    network = dataclasses.replace(config.network, head="dep", backbone=SMALL_BACKBONE, frozen="")
    other = dataclasses.replace(config, network=network, pretrained="weights.pth")
    with pytest.raises(
        UserError, match=r"^--config\.network\.head_from_features=True: head dep has"
    ):
        build_network(other, 4)

"""Runs with a validation split: evaluated on it while they train, and tested once."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_run import QUIET, small_config

from fgr_jax.calendar import Calendar
from fgr_jax.config import Config, Data, validate
from fgr_jax.data.source import open_sources
from fgr_jax.errors import UserError
from fgr_jax.inference.saved_run import open_run
from fgr_jax.report.plots import draw_curves
from fgr_jax.runs.logs import last_step, read_predictions
from fgr_jax.runs.summary import print_summary
from fgr_jax.runs.workdir import Workdir
from fgr_jax.sweep.results import result
from fgr_jax.terminal import Terminal
from fgr_jax.train import evaluation
from fgr_jax.train import loop as run_lib
from fgr_jax.train.recorder import Recorder

STEPS = [5, 10, 15]  # 39 images in batches of 8, three epochs: ⌈14.6⌉


def with_validation(config: Config) -> Config:
    config.data.train_split, config.data.validation_split = "train[:75%]", "train[75%:]"
    return config


def train(config: Config, workdir: Path) -> run_lib.Outcome:
    (workdir / "lock").unlink(missing_ok=True)  # held until this process ends
    return run_lib.train(config, Workdir.open(workdir), QUIET)


def records(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def of_split(workdir: Path, split: str) -> dict[int, dict[str, Any]]:
    return {each["step"]: each for each in records(workdir) if each["split"] == split}


def ratings(workdir: Path) -> dict[int, float]:
    paths = (workdir / "checkpoints").glob("*/metrics/metrics")
    return {int(path.parts[-3]): json.loads(path.read_text())["top1"] for path in paths}


@pytest.fixture(scope="module")
def whole(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a finished run."""
    workdir = tmp_path_factory.mktemp("validation") / "run"
    train(with_validation(small_config(data_dir)), workdir)
    return workdir


def test_it_is_evaluated_on_the_validation_split_and_tested_once(
    small: Config, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_validation(small)
    validation, test = (of_split(whole, split) for split in ("validation", "test"))
    assert list(validation) == STEPS
    assert list(test) == STEPS[-1:]
    assert [each["examples"] for each in validation.values()] == [13] * 3
    sources = open_sources(small.data, QUIET)
    assert test[STEPS[-1]]["examples"] == len(sources.test)
    labels = [sources.test[index].label for index in range(len(sources.test))]
    assert read_predictions(whole)[:, 0].tolist() == labels
    found = ratings(whole)
    assert len(found) >= 2
    assert all(found[step] == validation[step]["top1"] for step in found)
    # The same training as where those images are the test split, which says what the results must be.
    small.data.test_split, small.data.validation_split = small.data.validation_split, ""
    train(small, tmp_path / "other")
    for split, other in (("train", "train"), ("validation", "test")):
        ours, theirs = of_split(whole, split), of_split(tmp_path / "other", other)
        for step in ours:
            assert {**ours[step], "split": ""} == {**theirs[step], "split": ""}

    print_summary(Workdir.open(whole), 4, "", Terminal())
    printed = capsys.readouterr().out
    best = max(validation.values(), key=lambda each: each["top1"])
    assert "not to be reported" not in printed
    (line,) = (line for line in printed.splitlines() if "best on validation" in line)
    assert f"{best['top1']:.1%}" in line
    assert "Choose settings by the validation split alone." in printed
    swept = result(0, whole, 0)
    assert swept.top1 == test[STEPS[-1]]["top1"]
    assert (swept.evaluated, len(swept.curve)) == ("validation", 3)
    assert draw_curves([{swept.evaluated: swept.curve, "training": swept.curve}])


@pytest.mark.parametrize("interrupted", ["validation", "test"])
def test_what_was_interrupted_is_made_up_for(
    small: Config, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    with_validation(small)
    seen: list[int] = []

    def evaluate(steps: Any, state: Any, batches: Any, source: Any, *others: Any) -> Any:
        is_test = source.split == "test"
        if int(state.step) == STEPS[-1] and is_test == (interrupted == "test") and not seen:
            os.kill(os.getpid(), signal.SIGHUP)
            seen.append(1)
        return evaluation.evaluate(steps, state, batches, source, *others)

    monkeypatch.setattr(run_lib, "evaluate", evaluate)
    assert train(small, tmp_path / "run").interrupted_by == signal.SIGHUP
    splits = [each["split"] for each in records(tmp_path / "run") if each["step"] == STEPS[-1]]
    assert splits == ["train", "validation"][: 1 + (interrupted == "test")]
    assert train(small, tmp_path / "run").interrupted_by is None
    assert records(tmp_path / "run") == records(whole)
    assert ratings(tmp_path / "run") == ratings(whole)


@pytest.fixture(scope="module")
def long_run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The workdir of a run of twelve epochs, and the step at which it should have ended early."""
    workdir = tmp_path_factory.mktemp("long") / "run"
    train(long_config(small_config(data_dir)), workdir)
    validation = of_split(workdir, "validation")
    best, highest = 0, -1.0
    for step, each in validation.items():
        if each["top1"] > highest:
            best, highest = step, each["top1"]
        elif step - best >= 9:  # two epochs of 4.9 steps, rounded up
            return workdir, step
    raise AssertionError("choose another learning rate, for which it stops improving")


def long_config(config: Config) -> Config:
    config.duration = "12 epochs"
    return with_validation(config)


def test_a_run_without_progress_ends_early_and_is_tested_once(
    small: Config, long_run: tuple[Path, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, end = long_run
    long_config(small).early_stopping = "2 epochs"
    assert end < 59, "it ends early"
    outcome = run_lib.train(small, Workdir.open(tmp_path / "run"), Terminal())
    assert (outcome.step, outcome.total_steps, outcome.interrupted_by) == (end, end, None)
    printed = capsys.readouterr().out
    assert "stopping  after 2 epochs without a higher accuracy" in printed
    assert f"the training ended early, after {end} of 59 steps" in printed
    for split in ("train", "validation"):
        expected = {k: v for k, v in of_split(reference, split).items() if k <= end}
        assert of_split(tmp_path / "run", split) == expected
    assert list(of_split(tmp_path / "run", "test")) == [end]
    assert end in ratings(tmp_path / "run")

    run = open_run(Workdir.open(tmp_path / "run"))
    assert run.calendar.total_steps == end
    planned = Calendar.of(small, 39)
    assert last_step(tmp_path / "run", planned) == end
    assert last_step(tmp_path / "run", planned, until=end - 1) == planned.total_steps == 59
    before = records(tmp_path / "run")
    assert train(small, tmp_path / "run").first_step == end
    assert records(tmp_path / "run") == before

    capsys.readouterr()
    print_summary(Workdir.open(tmp_path / "run"), 4, "", Terminal())
    validation = of_split(tmp_path / "run", "validation")
    best = max(validation, key=lambda step: (validation[step]["top1"], -step))
    assert f"--step={best} evaluates it" in capsys.readouterr().out
    assert best in ratings(tmp_path / "run")


def test_early_stopping_needs_something_to_stop_by() -> None:
    config = Config(early_stopping="2 epochs")
    config.data.name = "synthetic/tiny"
    with pytest.raises(UserError, match=r"early_stopping='2 epochs': must be .never. without"):
        validate(config)
    config.data.validation_split = "train[:10%]"
    validate(config)
    for wrong in ("0.5 epochs", "10 steps"):
        config.evaluate_every = wrong
        with pytest.raises(UserError, match=f"evaluate_every='{wrong}': must be a whole number of"):
            validate(config)


@pytest.mark.parametrize("interrupted", ["validation", "test", "after the metrics"])
def test_an_early_end_that_is_interrupted_is_made_up_for(
    small: Config,
    long_run: tuple[Path, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    interrupted: str,
) -> None:
    reference, end = long_run
    long_config(small).early_stopping = "2 epochs"
    seen: list[int] = []

    def evaluate(steps: Any, state: Any, batches: Any, source: Any, *others: Any) -> Any:
        split = "test" if source.split == "test" else "validation"
        if int(state.step) == end and split == interrupted and not seen:
            os.kill(os.getpid(), signal.SIGHUP)
            seen.append(1)
        return evaluation.evaluate(steps, state, batches, source, *others)

    def save(recorder: Recorder, step: int, *others: Any) -> None:
        if step == end and interrupted == "after the metrics" and not seen:
            seen.append(1)
            raise KeyError("killed")
        original(recorder, step, *others)

    original = Recorder.save
    monkeypatch.setattr(run_lib, "evaluate", evaluate)
    monkeypatch.setattr(Recorder, "save", save)
    if interrupted == "after the metrics":
        with pytest.raises(KeyError):
            train(small, tmp_path / "run")
        assert end in of_split(tmp_path / "run", "test")
    else:
        assert train(small, tmp_path / "run").interrupted_by == signal.SIGHUP
        assert end not in of_split(tmp_path / "run", "test")
    monkeypatch.undo()
    outcome = train(small, tmp_path / "run")
    assert (outcome.step, outcome.interrupted_by) == (end, None)
    expected = {k: v for k, v in of_split(reference, "validation").items() if k <= end}
    assert of_split(tmp_path / "run", "validation") == expected
    assert list(of_split(tmp_path / "run", "test")) == [end]
    assert seen


def test_features_are_computed_for_all_three_splits(small: Config, tmp_path: Path) -> None:
    config = with_validation(small)
    config.network.frozen, config.data.views, config.duration = "backbone", 1, "1 epoch"
    train(config, tmp_path / "run")
    counts = {each["split"]: each["examples"] for each in records(tmp_path / "run")}
    sources = open_sources(config.data, QUIET)
    assert counts["validation"] == 13
    assert counts["test"] == len(sources.test)


def test_a_third_folder_is_for_validation_where_it_is_asked_for(tmp_path: Path) -> None:
    sizes = {"train": 4, "test": 2, "val": 3}
    seed = 0
    for split, count in sizes.items():
        for name in ("elm", "oak"):
            (tmp_path / "trees" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.random.default_rng(seed := seed + 1).integers(0, 255, (24, 24, 3))
                path = tmp_path / "trees" / split / name / f"{index}.png"
                path.write_bytes(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes())
    data = Data(name="folder", folder=str(tmp_path / "trees"), data_dir=str(tmp_path / "tfds"))
    plain = open_sources(data, QUIET)
    assert plain.validation is None
    assert plain.train.contents.unused == ["val"]
    data.validation_split = "validation"
    sources = open_sources(data, QUIET)
    assert sources.validation is not None
    expected = {p.read_bytes() for p in (tmp_path / "trees" / "val").rglob("*.png")}
    assert {sources.validation[i].encoded_image for i in range(6)} == expected
    assert [len(each) for each in (sources.train, sources.validation, sources.test)] == [8, 6, 4]
    assert sources.train.contents.unused == []
    # A hash split takes all images.
    data.validation_split, data.split, data.validation_share = "", "hash", 0.3
    divided = open_sources(data, QUIET)
    assert divided.validation is not None
    assert sum(map(len, (divided.train, divided.validation, divided.test))) == 18

"""`verify` finds planted faults: each named with the right step and the right stream."""

import dataclasses
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tiny_run import QUIET, ROOT, config_flags, small_config, tiny_config

from fgr_jax import diversification, random_streams
from fgr_jax.config import Config
from fgr_jax.data import pipeline
from fgr_jax.data.augmentation import MIRROR
from fgr_jax.data.batch import TrainingBatch
from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.runs.comparison import compare
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train import loop as run_lib
from fgr_jax.train import step as step_lib
from fgr_jax.verify import __main__ as command_line
from fgr_jax.verify import command

FAULTY_STEP = 5


def short_config(data_dir: Path) -> Config:
    config = small_config(data_dir)
    config.duration = "9 steps"
    config.loss.gce_start = "3 steps"
    config.runtime.fingerprint_every = "1 steps"
    return config


@pytest.fixture
def config(data_dir: Path) -> Config:
    return short_config(data_dir)


@pytest.fixture(scope="module")
def sound(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run without a fault."""
    workdir = tmp_path_factory.mktemp("sound") / "run"
    run_lib.train(short_config(data_dir), Workdir.open(workdir), QUIET)
    return workdir


def spoil_a_batch(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[TrainingBatch], None]) -> None:
    batches = pipeline.training_batches

    def faulty(*arguments: Any, **options: Any) -> Any:
        for step, batch in enumerate(batches(*arguments, **options), start=1):
            if step == FAULTY_STEP:
                spoil(batch)
            yield batch

    monkeypatch.setattr(pipeline, "training_batches", faulty)


def flip_a_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(batch: TrainingBatch) -> None:
        batch["image"][3, 7, 9, 1] ^= 1

    spoil_a_batch(monkeypatch, spoil)


def mirror_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(batch: TrainingBatch) -> None:
        batch["symmetry"][5] ^= MIRROR

    spoil_a_batch(monkeypatch, spoil)


def change_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(batch: TrainingBatch) -> None:
        batch["label"][2] = (batch["label"][2] + 1) % 4

    spoil_a_batch(monkeypatch, spoil)


def flip_a_mask_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, key_of = diversification.draw, random_streams.stream_key
    steps: list[Any] = []

    def remember(seed: int, stream: random_streams.Stream, step: Any = 0) -> Any:
        if stream is random_streams.Stream.DIVERSIFICATION:
            steps.append(step)
        return key_of(seed, stream, step)

    def faulty(*arguments: Any, **options: Any) -> Any:
        draws = draw(*arguments, **options)
        flip = steps[-1] == FAULTY_STEP - 1
        return draws._replace(cells=draws.cells.at[1, 0, 1, 2].set(draws.cells[1, 0, 1, 2] ^ flip))

    monkeypatch.setattr(step_lib, "stream_key", remember)
    monkeypatch.setattr(step_lib, "draw", faulty)


def flip_a_parameter_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    build = step_lib.build_steps

    def faulty_build(*arguments: Any, **options: Any) -> Any:
        steps = build(*arguments, **options)

        def train(state: Any, batch: Any) -> Any:
            new, record = steps.train(state, batch)
            if int(new.step) != FAULTY_STEP:
                return new, record
            bias = new.params["classifier"]["bias"]
            bits = (
                jax.lax.bitcast_convert_type(bias, jnp.uint32)
                .at[0]
                .set(jax.lax.bitcast_convert_type(bias, jnp.uint32)[0] ^ 1)
            )
            faulty = jax.lax.bitcast_convert_type(bits, jnp.float32)
            params = {**new.params, "classifier": {**new.params["classifier"], "bias": faulty}}
            return new.replace(params=params), record

        return steps._replace(train=train)

    monkeypatch.setattr(run_lib, "build_steps", faulty_build)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "one flipped pixel": (flip_a_pixel, "images"),
    "one mirrored image": (mirror_an_image, "images"),
    "another label": (change_a_label, "labels"),
    "one mask bit": (flip_a_mask_bit, "masks"),
    "one parameter bit": (flip_a_parameter_bit, "parameters"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(
    config: Config, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    plant, stream = FAULTS[fault]
    plant(monkeypatch)
    run_lib.train(config, Workdir.open(tmp_path / "faulty"), QUIET)
    comparison = compare(Workdir.open(sound), Workdir.open(tmp_path / "faulty"))
    assert comparison.first_parted == (FAULTY_STEP, stream)
    assert comparison.last_same_step == FAULTY_STEP - 1
    assert not comparison.differences
    assert not comparison.same


@pytest.mark.parametrize(
    ("field", "value", "stream"),
    [
        ("optimizer.learning_rate", 0.06, "parameters"),
        pytest.param("seed", 1, "images", marks=pytest.mark.long),
        pytest.param("diversification.p_patch", 0.4, "masks", marks=pytest.mark.long),
        pytest.param("loss.gce_start", "0 steps", "loss", marks=pytest.mark.long),
    ],
)
def test_another_config_is_named(
    config: Config, sound: Path, tmp_path: Path, field: str, value: Any, stream: str
) -> None:
    section, _, name = field.rpartition(".")
    setattr(getattr(config, section) if section else config, name, value)
    run_lib.train(config, Workdir.open(tmp_path / "other"), QUIET)
    comparison = compare(Workdir.open(sound), Workdir.open(tmp_path / "other"))
    assert comparison.first_parted == (1, stream)
    assert any(line.startswith(f"config.{field}: ") for line in comparison.differences)


def test_the_same_run_is_the_same(config: Config, sound: Path, tmp_path: Path) -> None:
    config.runtime = dataclasses.replace(config.runtime, decode_threads=5)
    run_lib.train(config, Workdir.open(tmp_path / "again"), QUIET)
    starts = tmp_path / "again" / "provenance.jsonl"
    resumed = json.loads(starts.read_text())
    del resumed["weights"]  # which only the first start records
    json_lines.append(starts, resumed)
    comparison = compare(Workdir.open(sound), Workdir.open(tmp_path / "again"))
    assert comparison.same
    assert comparison.steps == list(range(1, 10))
    assert comparison.differences == ["config.runtime.decode_threads: 2 and 5"]


def verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fgr_jax.verify", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_command_compares_two_runs(config: Config, sound: Path, tmp_path: Path) -> None:
    done = verify(sound, sound)
    assert done.returncode == 0, done.stderr
    assert "the same run: 9 fingerprints of steps 1 to 9 are bitwise equal" in done.stdout
    config.optimizer.learning_rate = 0.06
    run_lib.train(config, Workdir.open(tmp_path / "other"), QUIET)
    done = verify(sound, tmp_path / "other")
    assert done.returncode == 1
    assert "they diverge at step 1, first in the parameters (from the start)" in done.stdout
    assert "different  config.optimizer.learning_rate: 0.05 and 0.06" in done.stdout
    done = verify(sound)
    assert (done.returncode, done.stderr) == (
        1,
        "error: needs RUN_A and RUN_B; --help says what they are\n",
    )


def test_what_cannot_be_compared(sound: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no workdir of a run"):
        compare(Workdir.open(sound), Workdir.open(tmp_path))
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "data.json", "classes.json"):
        (other / name).write_text((sound / name).read_text())
    with pytest.raises(UserError, match=r"has no fingerprints.jsonl: run it with"):
        compare(Workdir.open(sound), Workdir.open(other))
    record = json.loads((sound / "fingerprints.jsonl").read_text().splitlines()[0])
    (other / "fingerprints.jsonl").write_text(json.dumps({**record, "step": 77}) + "\n")
    with pytest.raises(UserError, match="no fingerprints of the same step"):
        compare(Workdir.open(sound), Workdir.open(other))


def test_the_second_run_alone_reads_no_compiled_programs(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[str], bool]] = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> Any:
        calls.append((command, env.get("JAX_ENABLE_COMPILATION_CACHE") == "false"))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(command, "_kill_at", lambda *_, **__: None)
    same = types.SimpleNamespace(steps=range(4), parted={})
    monkeypatch.setattr(command, "compare", lambda *_: same)
    assert command_line.main(["verify", *config_flags(config), "--steps=4"]) == 0
    assert [compiles for _, compiles in calls] == [False, True] + [False] * (len(calls) - 2)
    assert len(calls) > 4
    folders = {
        argument
        for command, _ in calls
        for argument in command
        if argument.startswith("--config.runtime.compilation_cache=")
    }
    assert len(folders) == 1
    assert "verify-" in folders.pop()


@pytest.mark.long
def test_the_experiment(data_dir: Path) -> None:
    """On two devices, by the command, on the small config."""
    config = tiny_config(data_dir)
    config.loss.gce_start = "2 steps"
    done = subprocess.run(
        [sys.executable, "-m", "fgr_jax.verify", *config_flags(config), "--steps=6"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "on one device" in done.stdout
    assert "as promised" in done.stdout.splitlines()[-1]
    assert "NOT" not in done.stdout

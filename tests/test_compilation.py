"""The folder of compiled programs: where it is, what is read from it, and what it must never break."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tiny_run import QUIET

from fgr_jax import compilation
from fgr_jax.compilation import machine, set_up, users_folder
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.inference.saved_run import open_run
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_enable_xla_caches",
)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets up as a new process does, in which JAX has compiled nothing and has no folder yet."""
    monkeypatch.setenv("XLA_FLAGS", "")
    before = {name: jax.config.values[name] for name in OPTIONS}

    def new_process(where: str) -> None:
        jax.clear_caches()
        compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", None)
        config = Config()
        config.runtime.compilation_cache = where
        set_up(config)

    yield new_process
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def events() -> Iterator[list[str]]:
    """The events that JAX reports."""
    found: list[str] = []

    def note(event: str, **_: object) -> None:
        found.append(event.rpartition("/")[2])

    jax.monitoring.register_event_listener(note)
    yield found
    jax.monitoring.unregister_event_listener(note)


def total(size: int) -> float:
    return float(jax.jit(lambda x: jnp.sum(jnp.sin(x) * 3))(jnp.arange(size, dtype=jnp.float32)))


def programs(root: Path) -> list[Path]:
    return sorted((root / machine()).glob("*-cache"))


def test_cold_warm_and_without_the_same_bits(
    start: Callable, events: list[str], small: Config, tmp_path: Path
) -> None:
    small.duration, small.runtime.fingerprint_every = "4 steps", "1 steps"
    small.runtime.devices = 1
    runs, hits = {}, {}
    for name, where in (("cold", "cache"), ("warm", "cache"), ("without", "")):
        small.runtime.compilation_cache = str(tmp_path / where) if where else ""
        start(small.runtime.compilation_cache)
        events.clear()
        train(small, Workdir.open(tmp_path / name), QUIET)
        hits[name] = events.count("cache_hits")
        files = ("fingerprints.jsonl", "metrics.jsonl", "test_predictions.csv")
        runs[name] = [(tmp_path / name / file).read_bytes() for file in files]
        assert runs[name][0].count(b"\n") == 4
    assert runs["cold"] == runs["warm"] == runs["without"]
    names = {path.name.partition("-")[0] for path in programs(tmp_path / "cache")}
    of_a_run = {f"jit_{name}" for name in ("init_state", "train_step", "_fingerprint")}
    assert of_a_run | {"jit_evaluation_step"} <= names
    assert hits["cold"] == hits["without"] == 0
    assert hits["warm"] >= len(names)
    # A run that is opened may be somebody else's, and names no folder of programs to run.
    run, field = Workdir.open(tmp_path / "cold"), "runtime.compilation_cache"
    assert open_run(run).config.runtime.compilation_cache == "auto"
    assert open_run(run, {field: "mine"}).config.runtime.compilation_cache == "mine"


@pytest.mark.parametrize("damage", ["cut off", "emptied", "changed"])
def test_a_damaged_program_is_compiled_and_replaced(
    start: Callable,
    events: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    start(str(tmp_path))
    expected = total(1000)
    whole = {path: path.read_bytes() for path in programs(tmp_path)}
    assert whole
    for path, content in whole.items():
        middle = len(content) // 2
        changed = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        path.write_bytes({"cut off": content[:middle], "emptied": b"", "changed": changed}[damage])
    start(str(tmp_path))
    assert total(1000) == expected
    assert capfd.readouterr().err.count("\n") == 1
    assert [path.stat().st_size > 0 for path in programs(tmp_path)] == [True] * len(whole)
    start(str(tmp_path))
    events.clear()
    assert total(1000) == expected
    assert events.count("cache_hits") == len(whole)
    assert not capfd.readouterr().err


def test_a_folder_that_cannot_be_used_is_one_line(
    start: Callable, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    start(str(tmp_path / "file"))
    assert total(1001) == total(1001)
    line = capfd.readouterr().err
    assert line.startswith(f"warning: {tmp_path / 'file' / machine()}: compiled programs cannot be")
    assert line.count("\n") == 1
    assert jax.config.values["jax_compilation_cache_dir"] is None
    with pytest.raises(UserError, match=r"compilation_cache=gs://b: gs:// is not supported here"):
        start("gs://b")


def test_programs_that_cannot_be_written_are_one_line(
    start: Callable,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compilation, "_PROBE_BYTES", 0)
    start(str(tmp_path))
    total(10)
    # A folder in place of each file, as root may write where it has no permission.
    taken = [path.name for path in programs(tmp_path)]
    for name in taken:
        (tmp_path / machine() / name).unlink()
        (tmp_path / machine() / name).mkdir()
    start(str(tmp_path))
    total(10)
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert "could not be read or written (IsADirectoryError" in line


def test_where_it_is(start: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert users_folder() == tmp_path / "home/.cache/fgr_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # is to be ignored, says its specification
    assert users_folder() == tmp_path / "home/.cache/fgr_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert users_folder() == tmp_path / "caches/fgr_jax"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert users_folder() == tmp_path / "home/Library/Caches/fgr_jax"
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    start("auto")
    folder = tmp_path / "caches" / "fgr_jax" / machine()
    assert jax.config.values["jax_compilation_cache_dir"] == str(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert jax.config.values["jax_persistent_cache_enable_xla_caches"] == "none"
    start("")
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_the_users_own_settings_of_jax_come_first(start: Callable, tmp_path: Path) -> None:
    start("")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    config = Config()
    config.runtime.compilation_cache = str(tmp_path / "other")
    set_up(config)
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "own")
    assert not (tmp_path / "other").exists()


def test_each_kind_of_machine_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    here = machine()
    assert machine() == here
    names = {here}
    read = Path.read_text

    def with_line(name: str, value: str) -> None:
        def changed(path: Path) -> str:
            kept = [line for line in read(path).splitlines() if not line.startswith(name)]
            return "\n".join([*kept, f"{name}\t: {value}"])

        monkeypatch.setattr(Path, "read_text", changed)
        names.add(machine())

    with_line("flags", "sse2")
    with_line("flags", "sse2 avx512f")
    with_line("model name", "Another")
    with_line("processor", "9")  # is not of the kind
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(77)))
    names.add(machine())
    assert len(names) == 5


def test_the_oldest_programs_are_removed(
    start: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compilation, "MAX_BYTES", 250)
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    for age, (name, used) in enumerate(
        (("there/a", 0), ("here/b", 9), ("here/c", 0), ("there/d", 0))
    ):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 + used, 1000 + age))
    (tmp_path / "notes").write_bytes(bytes(1000))
    (tmp_path / "here" / "notes").write_bytes(bytes(1000))
    start(str(tmp_path))
    kept = {path.name for path in tmp_path.glob("*/*-cache")}
    assert kept == {"b-cache", "d-cache"}
    assert len(list(tmp_path.rglob("notes"))) == 2

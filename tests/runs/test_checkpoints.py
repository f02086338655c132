"""What is kept, what is found again, and what is said of a damaged checkpoint."""

import contextlib
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.distributed import data_mesh, replicated
from fgr_jax.errors import UserError
from fgr_jax.runs.checkpoints import Checkpoints, latest_step, read, read_latest, saved_steps


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def save(folder: Path, top1: dict[int, float | None]) -> None:
    with Checkpoints(epath.Path(folder)) as checkpoints:
        for step, value in top1.items():
            checkpoints.save(step, {"w": jnp.full(3, step, jnp.float32)}, top1=value)


def test_the_latest_two_and_the_best_are_kept_also_after_a_restart(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.3, 2: 0.9, 3: 0.5, 4: 0.4})
    assert steps_in(tmp_path) == [2, 3, 4]
    save(tmp_path, {5: 0.6, 6: None, 7: 0.7})
    assert steps_in(tmp_path) == [2, 6, 7]
    assert latest_step(epath.Path(tmp_path)) == 7


def test_the_newest_of_two_is_kept_though_it_is_the_worst(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.9, 2: 0.8, 3: 0.7, 4: 0.1})
    assert steps_in(tmp_path) == [1, 3, 4]


def test_restore_gives_the_saved_values(tmp_path: Path) -> None:
    save(tmp_path, {3: 0.5})
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        restored = checkpoints.restore(3, {"w": jnp.zeros(3)})
    np.testing.assert_array_equal(restored["w"], [3, 3, 3])


def test_saving_on_eight_devices_compiles_a_digest_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each slice of an array that Orbax would have a device save is a program of its own."""
    everywhere = replicated(data_mesh(jax.devices()[:8]))
    state = {
        str(size): jax.device_put(np.arange(8.0 * size, dtype=np.float32), everywhere)
        for size in (17, 23, 29)
    }
    with (
        jax.log_compiles(),
        caplog.at_level(logging.WARNING),
        Checkpoints(epath.Path(tmp_path)) as checkpoints,
    ):
        checkpoints.save(1, state, top1=None)
        checkpoints.wait()
        restored = checkpoints.restore(1, state)
    compiled = {line.split()[1] for line in caplog.messages if line.startswith("Compiling ")}
    assert compiled == {"jit(_digest)"}
    for name, saved in state.items():
        assert restored[name].sharding == everywhere
        np.testing.assert_array_equal(restored[name], saved)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    save(tmp_path, {1: 0.6, 3: 0.5})
    for path in (tmp_path / "3").rglob("*"):
        if path.is_file() and "d" in path.parts[-2:]:
            path.write_bytes(path.read_bytes()[:5])
    with (
        Checkpoints(epath.Path(tmp_path)) as checkpoints,
        pytest.raises(
            UserError, match=r"the checkpoint .*/3 cannot be read .*: move that"
        ) as raised,
    ):
        checkpoints.restore(3, {"w": jnp.zeros(3)})
    assert "delete" not in str(raised.value)


@pytest.mark.parametrize("name", ["3.damaged", "old_3", "3 (copy)", "٣", "³"])
def test_a_folder_that_was_moved_aside_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    save(tmp_path, {1: 0.6, 3: 0.5})
    (tmp_path / "3").rename(tmp_path / name)
    assert latest_step(epath.Path(tmp_path)) == 1
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(1, {"w": jnp.zeros(3)})["w"], [1, 1, 1])


# What Orbax, epath, TensorStore, the shell, JSON and Python give a meaning to.
_MEANINGFUL = [*"[]*?!{}%#|:;&$'\"\\~ =", "é", "中", "\udcff", "0", "gs:", "s3:", ".__lock", "\n"]
_ODD_NAMES = st.one_of(
    st.sampled_from(
        ["exp[1]", "Projects [2024]", "**", "[!a]", "gs:", "x.__lock", "a\udcff", "x" * 255]
    ),
    st.sampled_from(
        ["ocdbt.process_0", "9.orbax-checkpoint-tmp", "manifest.ocdbt", "default", "a\\b"]
    ),
    st.lists(st.sampled_from(_MEANINGFUL), min_size=1, max_size=8).map("".join),
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60
    ),
).filter(lambda name: name not in (".", ".."))


@settings(max_examples=40, deadline=None)
@given(names=st.lists(_ODD_NAMES, min_size=1, max_size=3))
def test_any_path_that_the_file_system_allows(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    top = tmp_path_factory.mktemp("odd")
    folder = top.joinpath(*names) / "checkpoints"
    folder.parent.mkdir(parents=True)
    save(folder, {1: 0.5, 3: None})
    assert saved_steps(epath.Path(folder)) == [1, 3]
    np.testing.assert_array_equal(read(epath.Path(folder), 3)["w"], [3, 3, 3])
    with Checkpoints(epath.Path(folder)) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(3, {"w": jnp.zeros(3)})["w"], [3, 3, 3])
    assert (folder / "3" / "default" / "manifest.ocdbt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoints"]


def test_a_path_longer_than_the_system_takes_at_once(tmp_path: Path) -> None:
    """It has room for the run's own files, but not for what Orbax appends."""
    length = 4000 - len(str(tmp_path))
    folder = tmp_path.joinpath(*["n" * 199] * (length // 200), "n" * (length % 200 + 1))
    folder.mkdir(parents=True)
    save(folder / "checkpoints", {3: 0.5})
    np.testing.assert_array_equal(read(epath.Path(folder) / "checkpoints", 3)["w"], [3, 3, 3])


def test_what_a_path_with_wildcards_left_unmerged_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orbax merges nothing there, as it takes the path for a pattern."""
    folder = tmp_path / "exp[1]" / "checkpoints"
    with monkeypatch.context() as patch:
        patch.setattr("fgr_jax.runs.checkpoints._literal_path", contextlib.nullcontext)
        save(folder, {3: 0.5, 5: 0.5})
    assert not (folder / "5" / "default" / "manifest.ocdbt").exists()
    np.testing.assert_array_equal(read(epath.Path(folder), 3)["w"], [3, 3, 3])
    with Checkpoints(epath.Path(folder)) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(5, {"w": jnp.zeros(3)})["w"], [5, 5, 5])


def test_a_temporary_folder_with_an_odd_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp[1]").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp[1]"))
    with pytest.raises(UserError, match=r"exp\[1\].*: set TMPDIR to a folder"):
        Checkpoints(epath.Path(tmp_path / "exp[1]" / "checkpoints"))
    assert not list((tmp_path / "tmp[1]").iterdir())


def test_an_unfinished_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, {3: 0.5})
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    assert latest_step(epath.Path(tmp_path)) == 3
    with Checkpoints(epath.Path(tmp_path)):
        assert not (tmp_path / "9.orbax-checkpoint-tmp").exists()


def test_no_changed_bit_is_read_as_a_state(tmp_path: Path) -> None:
    """Not all of the bits are of arrays; of those that are not, some do no harm."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(40, 30)).astype(np.float32)
    state = {"params": {"w": jnp.asarray(weights)}, "step": jnp.int32(3)}
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        checkpoints.save(3, state, top1=None)
    data = max(tmp_path.glob("3/default/**/d/*"), key=lambda path: path.stat().st_size)
    whole, refused = data.read_bytes(), 0
    for bit in rng.integers(8 * len(whole), size=20):
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        data.write_bytes(changed)
        try:
            found = read_latest(epath.Path(tmp_path))
        except UserError:
            refused += 1
        else:
            np.testing.assert_array_equal(found["params"]["w"], weights)
    assert refused > 10
    data.write_bytes(whole[: len(whole) // 2] + b"\0" + whole[len(whole) // 2 + 1 :])
    with (
        pytest.raises(UserError, match="cannot be read"),
        Checkpoints(epath.Path(tmp_path)) as checkpoints,
    ):
        checkpoints.restore(3, state)


def test_a_state_saved_without_its_digest_is_read(tmp_path: Path) -> None:
    state = {"w": jnp.arange(3, dtype=jnp.float32)}
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(3, args=ocp.args.StandardSave(state))
    np.testing.assert_array_equal(read_latest(epath.Path(tmp_path))["w"], [0, 1, 2])
    with Checkpoints(epath.Path(tmp_path)) as checkpoints:
        np.testing.assert_array_equal(checkpoints.restore(3, state)["w"], [0, 1, 2])

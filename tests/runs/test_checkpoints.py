"""What is kept, what is found again, and what is said of a damaged checkpoint."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from fgr_jax.errors import UserError
from fgr_jax.runs.checkpoints import Checkpoints, latest_step


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def save(folder: Path, top1: dict[int, float | None]) -> None:
    with Checkpoints(epath.Path(folder)) as checkpoints:
        for step, value in top1.items():
            checkpoints.save(step, {"w": jnp.full(3, step, jnp.float32)}, test_top1=value)


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


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    save(tmp_path, {3: 0.5})
    for path in (tmp_path / "3").rglob("*"):
        if path.is_file() and "d" in path.parts[-2:]:
            path.write_bytes(path.read_bytes()[:5])
    with (
        Checkpoints(epath.Path(tmp_path)) as checkpoints,
        pytest.raises(UserError, match=r"the checkpoint .*/3 cannot be read .*: delete that"),
    ):
        checkpoints.restore(3, {"w": jnp.zeros(3)})


def test_an_unfinished_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, {3: 0.5})
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    assert latest_step(epath.Path(tmp_path)) == 3
    with Checkpoints(epath.Path(tmp_path)):
        assert not (tmp_path / "9.orbax-checkpoint-tmp").exists()

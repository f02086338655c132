"""Which devices compute, and that XLA is told how."""

import os
import subprocess
import sys

import jax
import pytest

from fgr_jax.distributed import chosen, compute_deterministically, data_mesh
from fgr_jax.errors import UserError

FLAG = "--xla_gpu_deterministic_ops"


@pytest.mark.parametrize(
    ("before", "wanted", "after"),
    [
        ("", True, f"{FLAG}=true"),
        ("", False, f"{FLAG}=false"),
        ("--xla_dump_to=x", True, f"--xla_dump_to=x {FLAG}=true"),
        (f"{FLAG}=false", True, f"{FLAG}=false"),  # the user's choice counts
    ],
)
def test_xla_is_told_unless_the_user_has_told_it(
    monkeypatch: pytest.MonkeyPatch, before: str, wanted: bool, after: str
) -> None:
    monkeypatch.setenv("XLA_FLAGS", before)
    compute_deterministically(wanted)
    assert os.environ["XLA_FLAGS"] == after


def test_xla_knows_the_flag() -> None:
    """It ends a process whose XLA_FLAGS hold one that it does not know."""
    for flags, known in ((f"{FLAG}=true", True), ("--xla_no_such_flag=true", False)):
        done = subprocess.run(
            [sys.executable, "-c", "import jax; jax.devices()"],
            env={**os.environ, "XLA_FLAGS": flags},
            capture_output=True,
        )
        assert (done.returncode == 0) == known


def test_the_first_devices_or_all() -> None:
    assert chosen(0) == jax.devices()
    assert chosen(3) == jax.devices()[:3]
    assert data_mesh(chosen(3)).size == 3
    with pytest.raises(UserError, match=r"runtime.devices=9: there are 8 here"):
        chosen(9)

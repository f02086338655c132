"""A run that is served."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import served
from tiny_run import QUIET, small_config

from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train


@pytest.fixture(scope="package")
def workdir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = small_config(data_dir)
    config.duration = "1 epoch"
    folder = tmp_path_factory.mktemp("serve") / "run"
    train(config, Workdir.open(folder), QUIET)
    return folder


@pytest.fixture(scope="module")
def address(workdir: Path) -> Iterator[str]:
    """Of a server."""
    with served(workdir) as (_, address):
        yield address

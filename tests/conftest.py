"""What the tests share. Everything runs on the CPU, on eight virtual devices, without a network."""

import os
from pathlib import Path

import jax
import pytest
from tiny_run import tiny_config

from fgr_jax.config import Config
from fgr_jax.datasets.synthetic import Synthetic

# Before anything asks for a device; the environment is for the tests' subprocesses.
jax.config.update("jax_platforms", "cpu")
os.environ["JAX_PLATFORMS"] = "cpu"
jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiles what several tests, and their subprocesses, run only once."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    jax.config.update("jax_compilation_cache_dir", folder)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tfds folder in which "synthetic/tiny" is prepared."""
    folder = tmp_path_factory.mktemp("tfds")
    Synthetic(
        config="tiny", data_dir=str(folder), file_format="array_record"
    ).download_and_prepare()
    return folder


@pytest.fixture
def tiny(data_dir: Path) -> Config:
    """A run of seconds."""
    return tiny_config(data_dir)

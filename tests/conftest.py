"""What the tests share. Everything runs on the CPU, on eight virtual devices, without a network."""

import os
import signal
from pathlib import Path

import jax
import pytest
from bucket_server import bucket  # noqa: F401  # a fixture
from tiny_run import small_config, tiny_config

from fgr_jax import compilation
from fgr_jax.config import Config
from fgr_jax.data.sets.synthetic import Synthetic

# A process in the background of a script, or under nohup, ignores these, and so would the tests'
# subprocesses. Handlers, unlike what is ignored, are not inherited.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# Before anything asks for a device; the environment is for the tests' subprocesses.
jax.config.update("jax_platforms", "cpu")
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("COLUMNS", None)  # the width of tables, also where nobody looks at them
jax.config.update("jax_num_cpu_devices", 8)


# The files that take longest. They come first, so that at the end no process is alone with one.
SLOW = (
    *("train/test_loop.py", "models/test_timm_parity.py", "features/test_features.py"),
    *("features/test_cached_training.py", "train/test_torch_parity.py", "data/test_datasets.py"),
    *("train/test_frozen.py", "evaluate/test_evaluate.py", "train/test_kills.py"),
    *("train/test_processes.py", "benchmark/test_benchmark.py", "train/test_step.py"),
    *("losses/test_compared_losses.py", "losses/test_gce.py", "files/test_buckets.py"),
    *("report/test_report.py", "sweep/test_sweep.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the tests of the slow files to the front, in the order of `SLOW`."""
    tests = Path(__file__).parent
    order = {str(tests / name): place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(str(item.path), len(SLOW)))


@pytest.fixture(scope="session", autouse=True)
def _compile_once(request: pytest.FixtureRequest) -> None:
    """Keeps what the tests and their subprocesses compile, in the user's cache folder."""
    # XLA's passes are all the same: it is LLVM that optimizes less, in half of the time. The long tests
    # are compiled as users compile.
    name, value = "jax_disable_most_optimizations", request.config.option.markexpr == "not long"
    jax.config.update(name, value)
    os.environ[name.upper()] = str(value)
    caches = compilation.users_folder() / "tests"
    config = Config()
    config.runtime.compilation_cache = str(caches / "fgr_jax")
    compilation.set_up(config)
    os.environ["XDG_CACHE_HOME"] = str(caches)  # of the subprocesses, which set up by themselves


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


@pytest.fixture
def small(data_dir: Path) -> Config:
    """One of a network of two layers."""
    return small_config(data_dir)

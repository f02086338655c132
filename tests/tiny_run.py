"""A run of seconds, for the tests that train."""

from pathlib import Path

from fgr_jax.config import Config
from fgr_jax.reporting.terminal import Terminal

QUIET = Terminal(quiet=True)


def tiny_config(data_dir: Path) -> Config:
    """52 pictures of 32 pixels from "synthetic/tiny", a narrow ResNet-18, three epochs."""
    config = Config(batch_size=8, duration="3 epochs")
    config.data.name, config.data.data_dir = "synthetic/tiny", str(data_dir)
    config.data.resize, config.data.crop = 36, 32
    config.network.depth, config.network.width, config.network.last_stride = 18, 0.125, 1
    config.diversification.patch_size = 1
    config.loss.k, config.loss.gce_start = 2, "1 epoch"
    config.optimizer.learning_rate = 0.05
    config.runtime.decode_threads = 2
    config.runtime.fingerprint_every = "3 steps"
    return config

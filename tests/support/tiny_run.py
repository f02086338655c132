"""A run of seconds, for the tests that train."""

import runpy
import sys
from pathlib import Path

from small_backbone import SMALL_BACKBONE
from small_backbones import SHORT_RESNET

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.terminal import Terminal

ROOT = Path(__file__).parent.parent.parent
QUIET = Terminal(quiet=True)
_BASE = ROOT / "configs" / "cub.py"


def tiny_config(data_dir: Path) -> Config:
    """52 images of 32 pixels from "synthetic/tiny", the start of a narrow ResNet-18, three epochs."""
    config = Config(batch_size=8, duration="3 epochs")
    config.data.name, config.data.data_dir = "synthetic/tiny", str(data_dir)
    config.data.resize, config.data.crop = 36, 32
    config.network.backbone, config.network.depth, config.network.width = SHORT_RESNET, 18, 0.125
    config.diversification.patch_size = 1
    config.loss.k, config.loss.gce_start = 2, "1 epoch"
    config.optimizer.learning_rate = 0.05
    config.runtime.decode_threads = 2
    config.runtime.fingerprint_every = "3 steps"
    config.runtime.report = False  # ten seconds
    return config


def resnet_config(data_dir: Path) -> Config:
    """`tiny_config` with the whole ResNet."""
    config = tiny_config(data_dir)
    config.network.backbone, config.network.last_stride = "resnet", 1
    return config


def small_config(data_dir: Path) -> Config:
    """`tiny_config` with two layers in place of the ResNet, for tests of all but the network."""
    config = tiny_config(data_dir)
    config.network.backbone = SMALL_BACKBONE
    return config


def config_flags(config: Config) -> list[str]:
    """Returns the flags that a user would type for `config`."""
    base = config_lib.flat(runpy.run_path(str(_BASE))["get_config"]())
    overrides = [
        f"--config.{name}={value}"
        for name, value in config_lib.flat(config).items()
        if value != base[name]
    ]
    return [f"--config={_BASE}", *overrides]


def command(config: Config, workdir: Path, *more: str) -> list[str]:
    """Returns the command line that trains `config` in `workdir`."""
    main = [sys.executable, "-m", "fgr_jax.main"]
    return [*main, *config_flags(config), f"--workdir={workdir}", *more]

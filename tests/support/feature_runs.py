"""A tiny network with a frozen part, and the features of its splits; also as a command.

feature_runs.py DATA_DIR PAUSE computes them in small shards, with pauses of so many seconds around
every file, in which it can be killed.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from networks import random_variables
from tiny_run import QUIET, resnet_config

from fgr_jax import distributed
from fgr_jax.config import Config
from fgr_jax.data.source import ExampleSource, open_splits
from fgr_jax.features import description, store
from fgr_jax.features.opening import features_dir, open_features
from fgr_jax.features.reading import Features
from fgr_jax.models.network import Network, build_network
from fgr_jax.terminal import Terminal


def feature_config(data_dir: Path) -> Config:
    """Three views of 52 images, frozen up to layer3."""
    config = resnet_config(data_dir)
    config.network.width, config.network.last_stride = 1 / 16, 2
    config.network.frozen, config.data.views = "layer3", 3
    config.data.features_dtype = "float32"
    return config


@dataclasses.dataclass
class FeatureRun:
    """The parts of a run that features are made of."""

    config: Config
    network: Network
    variables: Any
    sources: tuple[ExampleSource, ExampleSource]

    @classmethod
    def of(cls, config: Config, seed: int = 0) -> "FeatureRun":
        """Builds the network of a config with random weights."""
        sources = open_splits(config.data, QUIET)
        network = build_network(config, len(sources[0].class_names))
        variables = random_variables(network, config.data.crop, config.data.crop, seed)
        return cls(config, network, variables, sources)

    def open(self, devices: int = 1, terminal: Terminal = QUIET) -> tuple[Features, Features]:
        """Opens the features of both splits, with that many of the devices, or all (0)."""
        mesh = distributed.data_mesh(distributed.chosen(devices))
        variables = jax.device_put(jax.device_get(self.variables), distributed.replicated(mesh))
        train, test = open_features(
            self.config, self.network, variables, self.sources, mesh, terminal
        )
        return train, test

    @property
    def folders(self) -> dict[str, Path]:
        """The folders that are there, by split."""
        found = features_dir(self.config.data.data_dir).glob("*/description.json")
        return {path.read_text().partition('"split": "')[2][:4]: path.parent for path in found}


def values(features: Features) -> np.ndarray:
    """All features of a split."""
    rows = [(i, view) for i in range(len(features)) for view in range(features.views)]
    leaves = jax.tree.leaves(features.batch(rows)["features"])
    return np.concatenate([leaf.reshape(len(rows), -1).astype(np.float32) for leaf in leaves], 1)


def files(folder: Path) -> dict[str, bytes]:
    """What is in the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def compute(data_dir: str, pause: float = 0) -> None:
    """Computes the features in shards of a batch."""
    description.SHARD_BYTES = 1
    write = store.Store.write

    def write_slowly(*arguments: Any) -> None:
        time.sleep(pause)
        write(*arguments)
        time.sleep(pause)

    store.Store.write = write_slowly  # type: ignore[assignment, method-assign]
    FeatureRun.of(feature_config(Path(data_dir))).open(0)


if __name__ == "__main__":
    compute(sys.argv[1], float(sys.argv[2]))

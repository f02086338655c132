"""Pictures a second of `predict`, from files to guesses, beside the bare network's."""

import math
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fgr_jax.benchmark.interleaving import interleaved, print_speeds
from fgr_jax.config import Config
from fgr_jax.data.source import ExampleSource, open_splits
from fgr_jax.distributed import batch_sharding, data_mesh, replicated
from fgr_jax.diversification import class_scores
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.models.network import build_network, forward
from fgr_jax.predict.guesses import compiled_look, guesses
from fgr_jax.predict.pictures import BATCHES_AHEAD, stream
from fgr_jax.terminal import Terminal

_TOP = 5


def print_predict_speed(config: Config, *, classes: int, pictures: int, rounds: int) -> None:
    """Times both, with random weights and batches of the config's size.

    Args:
      config: the network, the crop and the batch size.
      classes: of the network.
      pictures: in a round; generated photographs.
      rounds: timed rounds.
    """
    mesh = data_mesh()
    batches = max(1, math.ceil(pictures / config.batch_size))
    pictures = batches * config.batch_size
    network = build_network(config, classes)
    size = config.data.crop
    crops = np.zeros((config.batch_size, size, size, 3), np.uint8)
    init = jax.jit(
        lambda: network.init(jax.random.key(0), np.zeros((1, size, size, 3)), train=False),
        out_shardings=replicated(mesh),
    )
    trained = TrainedNetwork(0, network, init())

    @jax.jit
    def scores(variables: Any, images: jax.Array) -> jax.Array:
        maps: Any = forward(network, variables, images).maps
        return class_scores(maps)

    on_devices = jax.device_put(crops, batch_sharding(mesh))
    with tempfile.TemporaryDirectory() as folder:
        config.data.name, config.data.data_dir = "synthetic/photographs", folder
        config.data.train_split, config.data.test_split = "train", "test"
        look = compiled_look(trained, mesh, top=_TOP, with_maps=False)
        paths = _write(open_splits(config.data, Terminal())[0], Path(folder), pictures)

        def bare() -> None:
            for _ in range(batches):
                made = scores(trained.variables, on_devices)
            made.block_until_ready()

        def predict() -> None:
            threads, ahead = config.runtime.decode_threads, BATCHES_AHEAD * config.batch_size
            shown = stream(paths, config.data, threads=threads, ahead=ahead)
            for _ in guesses(shown, look, batch_size=config.batch_size):
                pass

        times = interleaved({"bare network": bare, "predict": predict}, rounds)
    print(
        f"predict: {pictures:,} photographs of 500×375 in files, batches of {config.batch_size}, "
        f"{size}×{size}; {config.runtime.decode_threads} threads decode; median of {rounds} "
        "interleaved rounds"
    )
    print_speeds(times, "predict / bare network", pictures=pictures, decimals=1)


def _write(source: ExampleSource, folder: Path, count: int) -> list[Path]:
    """So many of its pictures as files."""
    paths = [folder / f"{index:05}.jpg" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(source[index % len(source)].encoded_image)
    return paths

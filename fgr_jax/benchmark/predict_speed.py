"""Images per second of `predict`, from files to predictions, compared with the network alone."""

import math
import tempfile
from pathlib import Path

import jax
import numpy as np

from fgr_jax.benchmark.interleaving import interleaved, print_speeds
from fgr_jax.config import Config
from fgr_jax.data.source import open_splits
from fgr_jax.distributed import batch_sharding, data_mesh, replicated
from fgr_jax.inference.forward import compiled
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.models.network import build_network
from fgr_jax.predict.files import BATCHES_AHEAD, stream
from fgr_jax.predict.predictions import Predictor
from fgr_jax.terminal import Terminal

_TOP = 5


def print_predict_speed(config: Config, *, classes: int, count: int, rounds: int) -> None:
    """Times both on generated photographs, `count` of them a round, with random weights."""
    mesh, batch_size, size = data_mesh(), config.batch_size, config.data.crop
    batches = max(1, math.ceil(count / batch_size))
    count = batches * batch_size
    network = build_network(config, classes)
    init = jax.jit(
        lambda: network.init(jax.random.key(0), np.zeros((1, size, size, 3)), train=False),
        out_shardings=replicated(mesh),
    )
    trained = TrainedNetwork(0, network, init())
    scores = compiled(trained, mesh, lambda outputs, _: outputs.scores)
    predictor = Predictor(trained, mesh, crop=size, batch_size=batch_size, top=_TOP)
    crops = np.zeros((batch_size, size, size, 3), np.uint8)
    batch = jax.device_put({"image": crops}, batch_sharding(mesh))

    with tempfile.TemporaryDirectory() as folder:
        config.data.name, config.data.data_dir = "synthetic/photographs", folder
        config.data.train_split, config.data.test_split, config.data.fold = "train", "test", ""
        config.data.split, config.data.validation_split = "given", ""
        source, _ = open_splits(config.data, Terminal())
        paths = [Path(folder, f"{index:05}.jpg") for index in range(count)]
        for index, path in enumerate(paths):  # repeated if there are fewer
            path.write_bytes(source[index % len(source)].encoded_image)

        def bare_network() -> None:
            jax.block_until_ready([scores(batch) for _ in range(batches)])

        def predict() -> None:
            threads, ahead = config.runtime.decode_threads, BATCHES_AHEAD * batch_size
            for _ in predictor.predict(stream(paths, config.data, threads=threads, ahead=ahead)):
                pass

        times = interleaved({"bare network": bare_network, "predict": predict}, rounds)
    print(
        f"predict: {count:,} photographs of 500×375 in files, batches of {batch_size}, "
        f"{size}×{size}; {config.runtime.decode_threads} threads decode; median of {rounds} "
        "interleaved rounds"
    )
    print_speeds(times, "predict / bare network", count=count, decimals=1)

"""The speed of the input pipeline, compared with a bare OpenCV loop."""

import tempfile
from itertools import cycle, islice

import cv2
import numpy as np

from fgr_jax.benchmark.interleaving import interleaved, print_speeds
from fgr_jax.config import Config
from fgr_jax.data import images
from fgr_jax.data.pipeline import Share, training_batches
from fgr_jax.data.source import open_splits
from fgr_jax.models.network import build_network
from fgr_jax.terminal import Terminal


def print_input_speed(config: Config, *, count: int, rounds: int) -> None:
    """Times both on generated photographs, at least `count` images a round, which it prepares first."""
    with tempfile.TemporaryDirectory() as folder:
        config.data.name, config.data.data_dir = "synthetic/photographs", folder
        config.data.train_split, config.data.test_split, config.data.fold = "train", "test", ""
        config.data.split, config.data.validation_split = "given", ""
        config.data.balance, config.data.pairs = 0.0, False
        source, _ = open_splits(config.data, Terminal())
        share = Share(config.batch_size)
        steps = range(max(1, count // config.batch_size))
        count = len(steps) * config.batch_size
        encoded = [source[index].encoded_image for index in range(min(count, len(source)))]
        padding = build_network(config, 2).padding
        kilobytes = sum(map(len, encoded)) / len(encoded) / 1e3

        def bare() -> None:
            cv2.setNumThreads(1)
            for data in islice(cycle(encoded), count):
                pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
                image = np.asarray(pixels, np.uint8)
                canvas = images.Canvas.of(config.data, *image.shape[:2])
                image = images.resize(image, canvas.vertical.resized, canvas.horizontal.resized)
                images.crop(image, *canvas.offset(images.CENTER), config.data.crop)

        def pipeline() -> None:
            # Runs to its end, so that nothing is decoded ahead during the other variant's time.
            for _ in training_batches(
                source,
                config.data,
                config.runtime,
                share,
                seed=config.seed,
                steps=steps,
                padding=padding,
            ):
                pass

        times = interleaved({"bare loop": bare, "pipeline": pipeline}, rounds)
    print(
        f"input: 500×375 JPEGs of {kilobytes:.0f} kB to {config.data.resize} and "
        f"{config.data.crop}; {config.runtime.decode_threads} threads, "
        f"{config.runtime.decode_workers} worker processes; median of {rounds} interleaved rounds"
    )
    print_speeds(times, "pipeline / bare loop on one core", count=count, decimals=0)

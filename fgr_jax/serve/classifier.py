"""The network of a run, applied to a few images at a time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from fgr_jax.data.images import Image
from fgr_jax.inference.forward import DeviceBatch, compiled, most_probable, padded
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.losses.interface import Outputs


class Answer(NamedTuple):
    """What the network computes for an image."""

    classes: npt.NDArray[np.integer]  # [top], the most probable first
    probabilities: npt.NDArray[np.floating]  # [top]
    maps: npt.NDArray[np.floating] | None  # of these classes, [top, h, w]; None: it has none
    features: npt.NDArray[np.floating]  # averaged over space, [D]


class Classifier:
    """Applies a trained network to center crops.

    Every batch is padded to the next power of two, so that few programs are compiled.

    Args:
      trained: the network.
      mesh: its device; one is enough for a person's images.
      crop: its input, in pixels.
      top: the number of classes in each answer.
      largest: the largest number of images at once, a power of two.
    """

    def __init__(self, trained: TrainedNetwork, mesh: Mesh, *, crop: int, top: int, largest: int):
        self.largest = largest
        self._crop, self._mesh = crop, mesh

        def select(outputs: Outputs, _: DeviceBatch) -> Any:
            return *most_probable(outputs, top), outputs.features

        self._run = compiled(trained, mesh, select)

    def sizes(self) -> list[int]:
        """Returns the numbers of images for which there is a program."""
        return [2**power for power in range(self.largest.bit_length())]

    def compile(self, size: int) -> None:
        """Compiles the program for `size` images."""
        self(np.zeros((size, self._crop, self._crop, 3), np.uint8))

    def __call__(self, crops: Image | Sequence[Image]) -> list[Answer]:
        """Classifies center crops, uint8 `[N, crop, crop, 3]` with N at most `largest`."""
        size = next(size for size in self.sizes() if size >= len(crops))
        # JAX moves the array to the device faster than `rows_to_devices`, which is for many processes.
        batch = {"image": padded(np.asarray(crops), size)}
        classes, probabilities, maps, features = jax.device_get(self._run(batch))
        return [
            Answer(classes[i], probabilities[i], None if maps is None else maps[i], features[i])
            for i in range(len(crops))
        ]

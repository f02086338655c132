"""The contents of a batch.

Needs only NumPy and jax, so that a step can be timed without the packages that read data sets.
"""

from typing import TypedDict

import numpy as np
import numpy.typing as npt

from fgr_jax.config import Data
from fgr_jax.data import augmentation


class Batch(TypedDict):
    """A process's share of a global batch."""

    image: npt.NDArray[np.uint8]  # [B, crop, crop, 3], RGB
    label: npt.NDArray[np.int32]  # [B]
    mask: npt.NDArray[np.bool_]  # [B], false for padding and for corrupt images that are skipped


class TrainingBatch(Batch):
    """A process's share of a global batch to train on."""

    symmetry: npt.NDArray[np.int32]  # [B], which `augmentation.turned` applies on the devices


class ViewsBatch(TypedDict):
    """Several views of each image."""

    image: npt.NDArray[np.uint8]  # [B, V, crop, crop, 3], RGB
    label: npt.NDArray[np.int32]  # [B]
    mask: npt.NDArray[np.bool_]  # [B], false for padding and for corrupt images that are skipped
    symmetry: npt.NDArray[np.int32]  # [B, V], which `augmentation.turned` applies on the devices


class AnnotatedBatch(TypedDict):
    """A process's share of a global batch of a test split, with annotations and file names."""

    image: npt.NDArray[np.uint8]  # [B, V, crop, crop, 3], RGB: V crops, the center last
    label: npt.NDArray[np.int32]  # [B]
    mask: npt.NDArray[np.bool_]  # [B], false for padding and for corrupt images
    # [B, P, 3]: x and y of each annotated part, in pixels of the center crop, and whether it is
    # visible there.
    parts: npt.NDArray[np.float32]
    name: list[str]  # empty for padding
    problem: list[str]  # why an image is corrupt; empty where it is not


def noise_batch(data: Data, size: int, classes: int) -> TrainingBatch:
    """Returns a fixed batch of noise: images uint8 `[size, crop, crop, 3]` with random labels."""
    rng = np.random.default_rng(0)
    return TrainingBatch(
        image=rng.integers(0, 256, (size, data.crop, data.crop, 3), np.uint8),
        label=rng.integers(0, classes, size, np.int32),
        mask=np.ones(size, np.bool_),
        symmetry=rng.integers(0, augmentation.COUNT, size, np.int32),
    )

"""What both sides of a comparison make from a seed, in NumPy alone: weights, pictures, masks, sketches.

PyTorch's side runs once, by hand (`make_goldens.py`), and leaves sketches; the tests are our side.
Tensors bear the names and layouts of torchvision or timm.
"""

import importlib.util
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

Array = npt.NDArray[Any]

_SKETCH_SIZE = 16


def rng_for(name: str, seed: int) -> np.random.Generator:
    """A generator of its own for everything that has a name."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def weights(shapes: dict[str, list[int]], seed: int = 0) -> dict[str, Array]:
    """float64 tensors with no value of a norm or a LayerScale at its initial one, scaled so that
    signals neither die nor grow over a hundred layers.
    """
    return {
        name: _tensor(name, shape, rng_for(name, seed))
        for name, shape in shapes.items()
        if not name.endswith("num_batches_tracked")
    }


def _tensor(name: str, shape: list[int], rng: np.random.Generator) -> Array:
    if len(shape) == 4:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    if len(shape) == 3:  # a ViT's tokens and position embeddings
        return rng.normal(0, 0.5, shape)
    if len(shape) == 2:
        # Queries and keys are large enough for attention to differ from an average.
        gain = 4 if name.endswith("qkv.weight") else 1
        return rng.normal(0, np.sqrt(gain / shape[1]), shape)
    if name.endswith("running_mean"):
        return rng.normal(0, 0.2, shape)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 2.0, shape)
    if name.endswith("bias"):
        return rng.normal(0, 0.1, shape)
    # The scale of a norm or of a LayerScale. BatchNorm's is small where a residual branch ends: a deep
    # random network would turn float32's rounding of 1e-7 into gradients that differ by 5%, in PyTorch
    # as well as here.
    low, high = (0.05, 0.15) if name.endswith(("bn3.weight", "bn2.weight")) else (0.3, 0.8)
    return rng.uniform(low, high, shape)


def images(batch: int, height: int, width: int, seed: int = 0) -> Array:
    """Normalized pictures, float64 `[B, H, W, 3]`."""
    return rng_for("images", seed).normal(size=(batch, height, width, 3))


def labels(batch: int, classes: int, seed: int = 0) -> Array:
    """int64 `[B]`."""
    return rng_for("labels", seed).integers(0, classes, batch)


def mask(shape: tuple[int, ...], seed: int) -> Array:
    """A suppression mask, bool `[B, H, W, C]`, handed to both sides."""
    return rng_for("mask", seed).random(shape) < 0.4


def positions(prefix: int, rows: int) -> Array:
    """Position embeddings of 8 channels, float64 `[1, prefix + rows · rows, 8]`."""
    return rng_for("positions", rows).normal(size=(1, prefix + rows * rows, 8))


def sketch(array: Array) -> Array:
    """The sums of `array` under 16 random signings, and its norm: float64 `[17]`.

    Two arrays of one shape differ by about the root mean square of their sketches' differences, in
    the Euclidean norm, so a few numbers stand for millions.
    """
    flat = np.asarray(array, np.float64).ravel()
    rng = rng_for("signs", flat.size)
    sums = []
    for _ in range(_SKETCH_SIZE):
        bits = np.unpackbits(
            np.frombuffer(rng.bytes(-(-flat.size // 8)), np.uint8), count=flat.size
        )
        sums.append(flat.sum() - 2 * flat[bits == 1].sum())
    return np.asarray([*sums, np.linalg.norm(flat)])


def relative_difference(array: Array, golden: Array) -> float:
    """‖array − theirs‖ / ‖theirs‖, estimated from `golden`, the sketch of theirs."""
    difference = sketch(array)[:-1] - golden[:-1]
    return float(np.sqrt(np.mean(difference**2)) / golden[-1])


def places(pixels: int) -> Array:
    """A few thousand places among `pixels`, int `[4096]`."""
    return rng_for("places", pixels).integers(0, pixels, 4096)


CELL_SIZES = ((300, 300), (224, 161))


def solar_cells(height: int, width: int) -> Array:
    """The middles of four photographs of the package `elpv-dataset`, uint8 `[4, H, W, 3]`."""
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or []
    cells = []
    for number in (1, 500, 1500, 2500):
        with PIL.Image.open(Path(folder) / "data" / "images" / f"cell{number:04}.png") as file:
            cell = np.asarray(file.convert("RGB"))
        top, left = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
        cells.append(cell[top : top + height, left : left + width])
    return np.stack(cells)


def torch_file_tensors() -> dict[str, Array]:
    """The tensors of `torch_files/*.pth`; bfloat16 represents the values of "bfloat16"."""
    rng = rng_for("torch files", 0)
    dtypes = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
    shapes = {"transposed": (3, 5), "first": (4,), "second": (2,), "channels_last": (2, 3, 2, 2)}
    return {
        **{name: rng.uniform(0, 100, (2, 3)).astype(name) for name in dtypes},
        "bfloat16": rng.integers(-128, 128, (3, 2)).astype(np.float32),
        "number": np.asarray(7),
        "empty": np.zeros((0, 3), np.float32),
        **{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
        "parameter": rng.normal(size=3).astype(np.float32),
    }

"""Folders of generated images whose color is their class: a small network learns them in seconds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

# RGB, far from each other.
COLORS: Mapping[str, Sequence[int]] = {
    "blue": (40, 60, 200),
    "green": (40, 180, 60),
    "red": (200, 50, 40),
    "yellow": (210, 200, 50),
}


def write_image(path: Path, color: Sequence[int], seed: int) -> None:
    """Writes a noisy image of a color, 40×40 pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(0, 25, (40, 40, 3))
    pixels = np.clip(np.asarray(color) + noise, 0, 255).astype(np.uint8)
    path.write_bytes(cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes())


def write_classes(folder: Path, split: str, counts: Mapping[str, int], *, seed: int = 0) -> None:
    """Writes that many images of each color into FOLDER/SPLIT/COLOR."""
    for place, (name, count) in enumerate(counts.items()):
        for index in range(count):
            path = folder / split / name / f"{index:03}.png"
            write_image(path, COLORS[name], 10_000 * seed + 1000 * place + index)

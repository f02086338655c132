"""Our images against torchvision's (see `goldens/make_preprocessing.py`)."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from goldens import recipe

from fgr_jax.config import Data
from fgr_jax.data import images

SIZE = 512

# The allowed mean absolute difference, in gray levels of 255, by the golden file's names. CMYK becomes
# RGB by OpenCV's formula here, and by Pillow's in torchvision.
BOUNDS = {
    "smaller than 512, JPEG": 0.5,
    "larger than 512, JPEG": 0.5,
    "twice as large, JPEG": 0.5,
    "one side smaller, JPEG": 0.6,
    "turned by EXIF, JPEG": 0.5,
    "grey, JPEG": 0.5,
    "CMYK, JPEG": 1.0,
    "with alpha, PNG": 0.5,
}


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent.parent / "goldens" / "preprocessing.npz") as file:
        return dict(file)


def difference(pixels: np.ndarray, samples: np.ndarray, inside: np.ndarray | None = None) -> float:
    """Mean absolute difference of a 512×512 image from torchvision's, at the golden's places."""
    gap = np.abs(pixels.reshape(-1, 3)[recipe.places(SIZE * SIZE)].astype(float) - samples)
    return float(gap.mean() if inside is None else gap[inside].mean())


@pytest.mark.parametrize("name", BOUNDS)
def test_resize_and_crops(goldens: dict[str, np.ndarray], name: str) -> None:
    decoded = images.decode(goldens[f"{name}/bytes"].tobytes())
    samples = goldens[f"{name}/samples"]
    resized = images.resize(decoded, SIZE, SIZE)
    rows, columns = np.divmod(recipe.places(SIZE * SIZE), SIZE)
    crops = {"top left": (0, 0), "top right": (0, 64), "bottom left": (64, 0)}
    crops |= {"bottom right": (64, 64), "center": (32, 32)}
    for crop, (top, left) in crops.items():
        inside = (top <= rows) & (rows < top + 448) & (left <= columns) & (columns < left + 448)
        assert difference(resized, samples, inside) < BOUNDS[name], crop
    assert images.Canvas.of(Data(), *decoded.shape[:2]).offset(images.CENTER) == (32, 32)

    choices = {"ours": resized} | {
        choice: cv2.resize(decoded, (SIZE, SIZE), interpolation=getattr(cv2, f"INTER_{choice}"))
        for choice in ("LINEAR", "AREA", "CUBIC", "LANCZOS4")
    }
    row = {choice: difference(pixels, samples) for choice, pixels in choices.items()}
    print(f"{name:26}", *(f"{choice} {value:.2f}" for choice, value in row.items()))
    assert row["ours"] <= min(row.values()) + 0.05

"""torchvision's side of the geometry's comparison: writes `geometry.npz` beside this file.

Run by hand, as `make_preprocessing.py`. The file holds small images as encoded bytes, and pixels of the
five crops that torchvision cuts from them, with the short side resized and with the long side resized
and padded; and sizes that torchvision resizes images of many sizes to.
"""

import io
from pathlib import Path

import numpy as np
import recipe
from make_preprocessing import encode, photograph
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms.v2 import functional

HERE = Path(__file__).parent
SIZE, CROP = 96, 80
PLACES = recipe.places(CROP * CROP)[:300]
COLOR = (124, 116, 104)
SHAPES = [(300, 200), (181, 270), (70, 181), (60, 41), (96, 131), (400, 97)]


def sizes() -> np.ndarray:
    """Rows of width, height, size, and width and height by the short and by the long side."""
    rng = recipe.rng_for("sizes", 0)
    rows = []
    for _ in range(400):
        width, height, size = (int(np.exp(rng.uniform(0.5, 6.5))) for _ in range(3))
        if max(width, height) * size > 40_000 * min(width, height):
            continue
        blank = Image.new("L", (width, height))
        by_short = functional.resize(blank, [size]).size
        by_long = (0, 0)
        if min(width, height) * size >= max(width, height):  # otherwise a side has no pixel
            by_long = functional.resize(blank, None, max_size=size).size
        rows.append([width, height, size, *by_short, *by_long])
    return np.array(rows)


def padded(resized: Image.Image) -> Image.Image:
    """Pads an image as torchvision's CenterCrop does, but with `COLOR`."""
    square = transforms.CenterCrop(SIZE)
    inside = np.asarray(square(Image.new("L", resized.size, 255))) > 0
    return Image.fromarray(
        np.where(inside[:, :, None], np.asarray(square(resized)), np.uint8(COLOR))
    )


def main() -> None:
    five = transforms.FiveCrop(CROP)
    goldens: dict[str, np.ndarray] = {"sizes": sizes()}
    for width, height in SHAPES:
        # So smooth that interpolations hardly differ, and displacements do.
        smooth = photograph(width, height).filter(ImageFilter.GaussianBlur(4))
        name, data = f"{width}×{height}", encode(smooth, "JPEG", quality=85)
        goldens[f"{name}/bytes"] = np.frombuffer(data, np.uint8)
        picture = Image.open(io.BytesIO(data)).convert("RGB")
        canvases = {
            "crop": functional.resize(picture, [SIZE]),
            "pad": padded(functional.resize(picture, None, max_size=SIZE)),
        }
        for method, canvas in canvases.items():
            crops = np.stack([np.asarray(each) for each in five(canvas)])
            goldens[f"{name}/{method}"] = crops.reshape(5, -1, 3)[:, PLACES]
    np.savez_compressed(HERE / "geometry.npz", **goldens)
    print(f"{(HERE / 'geometry.npz').stat().st_size / 1e3:.0f} kB, {len(goldens['sizes'])} sizes")


if __name__ == "__main__":
    main()

"""torchvision's side of the preprocessing comparison: writes `preprocessing.npz` beside this file.

Run by hand, as `make_goldens.py`. The file holds small pictures as encoded bytes, and of each the
512×512 pixels that torchvision makes of it, at a few thousand places.
"""

import io
from pathlib import Path

import numpy as np
import recipe
from PIL import Image, ImageOps
from torchvision import transforms

HERE = Path(__file__).parent
SIZE = 512


def photograph(width: int, height: int) -> Image.Image:
    """A texture with structure at every scale, like a photograph, and a few hard edges."""
    rng = recipe.rng_for("photograph", width)
    picture = np.full((height, width, 3), 110.0)
    for cells, strength in ((4, 40.0), (16, 30.0), (64, 20.0), (200, 10.0)):
        coarse = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        channels = [
            np.asarray(Image.fromarray(coarse[:, :, c]).resize((width, height), Image.BICUBIC))
            for c in range(3)
        ]
        picture += np.stack(channels, -1)
    picture[height // 4 : height // 3] = 240
    picture[:, width // 2 : width // 2 + 3] = 15
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def encode(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    alpha = photograph(400, 300).convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    return {
        "smaller than 512, JPEG": encode(photograph(300, 240), "JPEG", quality=85),
        "larger than 512, JPEG": encode(photograph(800, 600), "JPEG", quality=80),
        "twice as large, JPEG": encode(photograph(1100, 1040), "JPEG", quality=70),
        "one side smaller, JPEG": encode(photograph(900, 350), "JPEG", quality=80),
        "turned by EXIF, JPEG": encode(photograph(640, 480), "JPEG", quality=80, exif=rotated),
        "grey, JPEG": encode(photograph(500, 375).convert("L"), "JPEG", quality=85),
        "CMYK, JPEG": encode(photograph(440, 330).convert("CMYK"), "JPEG", quality=85),
        "with alpha, PNG": encode(alpha.quantize(64).convert("RGBA"), "PNG", optimize=True),
    }


def main() -> None:
    resize = transforms.Resize((SIZE, SIZE))  # bilinear, with antialiasing
    five = transforms.FiveCrop(448)
    centre = transforms.CenterCrop(448)
    goldens: dict[str, np.ndarray] = {}
    for name, data in pictures().items():
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        resized = resize(picture)
        pixels = np.asarray(resized)
        goldens[f"{name}/bytes"] = np.frombuffer(data, np.uint8)
        goldens[f"{name}/samples"] = pixels.reshape(-1, 3)[recipe.places(SIZE * SIZE)]
        # The crops are windows of the resized picture; say which.
        windows = [*five(resized), centre(resized)]
        offsets = [(0, 0), (0, 64), (64, 0), (64, 64), (32, 32), (32, 32)]
        for window, (top, left) in zip(windows, offsets, strict=True):
            assert (np.asarray(window) == pixels[top : top + 448, left : left + 448]).all()
    np.savez_compressed(HERE / "preprocessing.npz", **goldens)
    print(f"{(HERE / 'preprocessing.npz').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

"""The distortions of TrivialAugment (Müller and Hutter 2021), in its "wide" space, by Pillow.

Operations and strengths are those of torchvision's `TrivialAugmentWide` to the pixel: what is uncovered
is black, and pixels are moved without interpolation.
"""

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ImageEnhance, ImageOps

from fgr_jax.data.augmentation import BINS, Distortion
from fgr_jax.data.images.decoding import Image


def _strengths(last: float) -> npt.NDArray[np.float32]:
    """Returns `BINS` values from 0 to `last`, rounded as by `torch.linspace`: 15.999999 is 15 pixels."""
    step, place = np.float64(np.float32(last) / np.float32(BINS - 1)), np.arange(BINS)
    from_end = np.float32(last) - step * (BINS - 1 - place)
    return np.where(place < BINS // 2, step * place, from_end).astype(np.float32)


_SHARES, _PIXELS, _DEGREES = _strengths(0.99), _strengths(32), _strengths(135)
_BITS = 8 - np.round(np.arange(BINS) * 6 / (BINS - 1))
_LEVELS = np.ceil(np.linspace(255, 0, BINS))

# Those of the operations that have one, and a direction.
_SIGNED = {
    **dict.fromkeys(("shear_x", "shear_y", "brightness", "color", "contrast"), _SHARES),
    "sharpness": _SHARES,
    **dict.fromkeys(("translate_x", "translate_y"), _PIXELS),
    "rotate": _DEGREES,
}
_ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "color": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}


def distorted(image: Image, distortion: Distortion) -> Image:
    """Applies one operation to an image, uint8 `[H, W, 3]`."""
    return np.asarray(_distorted(PIL.Image.fromarray(image), distortion))


def _distorted(image: PIL.Image.Image, distortion: Distortion) -> PIL.Image.Image:
    name, strength = distortion.operation, distortion.bin
    value = float(_SIGNED[name][strength]) if name in _SIGNED else 0.0
    value = -value if distortion.is_negative else value
    match name:
        case "shear_x":
            return _moved(image, 1, value, 0, 0, 1, 0)
        case "shear_y":
            return _moved(image, 1, 0, 0, value, 1, 0)
        case "translate_x":
            return _moved(image, 1, 0, -int(value), 0, 1, 0)
        case "translate_y":
            return _moved(image, 1, 0, 0, 0, 1, -int(value))
        case "rotate":
            return image.rotate(value)
        case "posterize":
            return ImageOps.posterize(image, int(_BITS[strength]))
        case "solarize":
            return ImageOps.solarize(image, int(_LEVELS[strength]))
        case "auto_contrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "identity":
            return image
    return _ENHANCERS[name](image).enhance(1 + value)


def _moved(image: PIL.Image.Image, *matrix: float) -> PIL.Image.Image:
    """Takes the pixel at (x, y) from (ax + by + c, dx + ey + f), for a matrix (a, …, f)."""
    return image.transform(image.size, PIL.Image.Transform.AFFINE, matrix)

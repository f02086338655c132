"""Pictures and overlays as `data:` addresses: what a page carries with it."""

import base64

import cv2
import numpy as np
import numpy.typing as npt

from fgr_jax import images
from fgr_jax.config import Data
from fgr_jax.heatmaps import at_pixels, overlay

_LONGER_SIDE = 240  # pixels: what a card is wide, and about 10 kB
_JPEG_QUALITY = 82


def smaller(picture: images.Image) -> images.Image:
    """A picture `[h, w, 3]` of the size that a page shows."""
    height, width = picture.shape[:2]
    factor = min(1.0, _LONGER_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def as_jpeg(picture: images.Image) -> str:
    """The address of a picture."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    encoded = cv2.imencode(".jpg", picture[:, :, ::-1], options)[1]
    return as_address(encoded.tobytes(), "image/jpeg")


def heat_map(
    picture: images.Image,
    activation: npt.NDArray[np.float32],
    data: Data,
    stride: int,
    *,
    highest: float,
) -> str:
    """The address of a picture with a map of its centre crop over it.

    Args:
      picture: `[h, w, 3]`, of any size.
      activation: one class's map of its centre crop, `[H, W]`.
      data: where that crop lies.
      stride: pixels from one cell to the next.
      highest: the value that gets the warmest colour.
    """
    offset = images.centre_offset(data.resize, data.crop)
    heat = at_pixels(activation, data.crop, stride)
    return as_jpeg(
        overlay(picture, heat, resize=data.resize, top=offset, left=offset, highest=highest)
    )


def as_address(content: bytes, media_type: str) -> str:
    """The `data:` address of a file's content."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

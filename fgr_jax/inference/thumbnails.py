"""Small versions of images, for pages."""

import base64

import cv2
import numpy as np

from fgr_jax.data.images import Image


def shrunk(image: Image, longer_side: int) -> Image:
    """Resizes an image to at most `longer_side` pixels on its longer side."""
    height, width = image.shape[:2]
    factor = min(1.0, longer_side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def as_jpeg(image: Image, quality: int) -> bytes:
    """Encodes an RGB image as a JPEG of a quality from 0 to 100."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", image[:, :, ::-1], options)[1].tobytes()


def as_url(image: Image, quality: int) -> str:
    """Returns an RGB image as a `data:` URL."""
    return f"data:image/jpeg;base64,{base64.b64encode(as_jpeg(image, quality)).decode()}"

"""Images and other files as `data:` URLs, which a page carries with it."""

import base64

import cv2

from fgr_jax.data.images import Image

# Of a thumbnail, in pixels: the width of a card, and about 10 kB.
_LONGER_SIDE = 240
_JPEG_QUALITY = 82


def thumbnail(image: Image) -> Image:
    """Shrinks an image `[H, W, 3]` to the size that a page shows."""
    height, width = image.shape[:2]
    factor = min(1.0, _LONGER_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def jpeg_url(image: Image) -> str:
    """Encodes an image as JPEG."""
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    encoded = cv2.imencode(".jpg", image[:, :, ::-1], options)[1]
    return data_url(encoded.tobytes(), "image/jpeg")


def data_url(content: bytes, media_type: str) -> str:
    """Encodes the content of a file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

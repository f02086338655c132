"""Pictures and overlays as `data:` addresses: what a page carries with it."""

import base64

import cv2

from fgr_jax.data import images

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


def as_address(content: bytes, media_type: str) -> str:
    """The `data:` address of a file's content."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

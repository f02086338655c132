"""Images as NumPy arrays: what files are, decoding, resizing, cropping. Color is RGB, `[H, W, 3]`."""

from fgr_jax.data.images.crops import (
    Color,
    check_readable,
    crop,
    crops_at,
    resize,
    resize_and_crop,
    test_crops,
)
from fgr_jax.data.images.decoding import Image, check, decode
from fgr_jax.data.images.errors import ImageError
from fgr_jax.data.images.geometry import CENTER, Canvas, test_places
from fgr_jax.data.images.kinds import SUFFIXES, is_image, kind_of
from fgr_jax.data.images.trivial_augment import distorted

__all__ = [
    "CENTER",
    "SUFFIXES",
    "Canvas",
    "Color",
    "Image",
    "ImageError",
    "check",
    "check_readable",
    "crop",
    "crops_at",
    "decode",
    "distorted",
    "is_image",
    "kind_of",
    "resize",
    "resize_and_crop",
    "test_crops",
    "test_places",
]

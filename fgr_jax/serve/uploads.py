"""An image as it was uploaded, ready for the network and for the page."""

from typing import NamedTuple

from fgr_jax.config import Data
from fgr_jax.data.images import CENTER, Canvas, Color, Image, crops_at, decode
from fgr_jax.inference.thumbnails import shrunk

JPEG_QUALITY = 85  # of the images in answers
_LONGER_SIDE = 640  # of the image on the page, in pixels


class Upload(NamedTuple):
    """A decoded image."""

    crop: Image  # the network's input, uint8 `[crop, crop, 3]`
    shown: Image | None  # the whole image, with at most 640 pixels on its longer side
    canvas: Canvas  # of the decoded image
    size: tuple[int, int]  # height and width as decoded


def read(encoded: bytes, data: Data, padding: Color | None, *, to_show: bool = False) -> Upload:
    """Decodes an image and cuts its center crop, as evaluation does.

    Args:
      encoded: the image.
      data: how the run decodes and crops images.
      padding: as for `crops_at`.
      to_show: whether the whole image is wanted, too.

    Raises:
      ImageError: it is no image of a known format, damaged or too large.
    """
    image = decode(encoded, cut_bottom=data.cut_bottom, max_pixels=data.max_pixels)
    height, width = image.shape[:2]
    crop = crops_at(image, data, (CENTER,), padding)[0]
    canvas = Canvas.of(data, height, width)
    shown = shrunk(image, _LONGER_SIDE) if to_show else None
    return Upload(crop, shown, canvas, (height, width))

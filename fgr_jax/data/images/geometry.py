"""Where an image lies on the canvas that its crops are cut from, by `data.resize_method`.

"squash"  the image becomes the canvas, a square of data.resize pixels, whatever its aspect ratio
"crop"    its short side becomes data.resize pixels, and the resized image is the canvas
"pad"     its long side does, and the image lies in the middle of a square of that side
"""

import dataclasses
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from fgr_jax.config import Data
from fgr_jax.data.augmentation import Place
from fgr_jax.data.images.errors import ImageError

_Coordinates = TypeVar("_Coordinates", float, npt.NDArray[np.floating])


CENTER = Place(0.5, 0.5)
_CORNERS = Place(0, 0), Place(0, 1), Place(1, 0), Place(1, 1)


def test_places(crops: int) -> tuple[Place, ...]:
    """Returns the place of each crop of a test image, the center last.

    With `crops=5` they are those of torchvision's `FiveCrop`, in its order: upper left, upper right,
    lower left, lower right, center; with `crops=1`, the center alone.
    """
    return (*(_CORNERS if crops == 5 else ()), CENTER)


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """The rows or the columns of a canvas.

    Attributes:
      size: the number of pixels.
      resized: how many of them are those of the resized image.
      start: where these begin.
    """

    size: int
    resized: int
    start: int = 0

    def offset(self, share: float, crop: int, *, is_drawn: bool) -> int:
        """Returns where a crop begins, in pixels; the arguments are as for `Place`."""
        margin = self.size - crop
        return min(int(share * (margin + 1)), margin) if is_drawn else round(share * margin)

    def in_crop(self, pixels: _Coordinates, length: int, offset: int) -> _Coordinates:
        """Maps coordinates of pixels in the image to those in a crop.

        Args:
          pixels: 0 is the center of the first of `length` pixels.
          length: the number of pixels of the image, or of a smaller version of it.
          offset: where the crop begins on the canvas.
        """
        # The center of pixel i is at i + ½ from the edge, before resizing and after it.
        return (pixels + 0.5) * self.resized / length - 0.5 - (offset - self.start)


@dataclasses.dataclass(frozen=True, slots=True)
class Canvas:
    """What the crops of an image are cut from; `crop` is their side in pixels."""

    vertical: Axis
    horizontal: Axis
    crop: int

    @classmethod
    def of(cls, data: Data, height: int, width: int) -> "Canvas":
        """Returns the canvas of an image of `height` × `width` pixels.

        Raises:
          ImageError: with "crop", the image is so long that its canvas has more than a quarter of
            `data.max_pixels`. A JPEG that is decoded at a reduced size has at least as many pixels as
            this, so that it is never enlarged again.
        """
        size = data.resize
        if data.resize_method == "crop":
            # The long side is rounded down as torchvision's Resize(size) does.
            short = min(height, width)
            rows, columns = int(size * height / short), int(size * width / short)
            if 4 * rows * columns > data.max_pixels:
                raise ImageError(
                    f"has {width:,} × {height:,} pixels, which --config.data.resize_method=crop makes "
                    f"{columns:,} × {rows:,}, more than a quarter of --config.data.max_pixels="
                    f"{data.max_pixels}"
                )
            return cls(Axis(rows, rows), Axis(columns, columns), data.crop)
        if data.resize_method == "pad":
            long = max(height, width)
            rows, columns = (max(1, int(size * side / long)) for side in (height, width))
            # As torchvision's CenterCrop pads.
            top, left = ((size - side) // 2 for side in (rows, columns))
            return cls(Axis(size, rows, top), Axis(size, columns, left), data.crop)
        return cls(Axis(size, size), Axis(size, size), data.crop)

    @property
    def is_filled(self) -> bool:
        """Whether the resized image covers all of it."""
        return all(axis.resized == axis.size for axis in (self.vertical, self.horizontal))

    def offset(self, place: Place) -> tuple[int, int]:
        """Returns (top, left) of the crop at `place`, in pixels."""
        return (
            self.vertical.offset(place.top, self.crop, is_drawn=place.is_drawn),
            self.horizontal.offset(place.left, self.crop, is_drawn=place.is_drawn),
        )

"""Families of backbones that are compared with timm's: which members, on images of which size."""

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

Size = tuple[int, int]  # height and width


class Family(NamedTuple):
    """What `make_timm.py` computes for a family and `models/test_timm_parity.py` compares.

    Attributes:
      small: the names of members with few channels; the first one is trained, too.
      sizes: of the images for them, one of which is not square, and one not divisible by the stride
        where the architecture allows it.
      train_size: the side of the square images that the first one is trained on.
      full: listed architectures that are computed in full, and the size of the images.
    """

    small: tuple[str, ...]
    sizes: tuple[Size, ...]
    train_size: int
    full: Mapping[str, Size]


FAMILIES: Mapping[str, Family] = {
    "convnext": Family(("narrow",), ((64, 96), (77, 109)), 64, {"convnext_tiny": (64, 96)}),
}


def digest(shapes: Mapping[str, list[int]]) -> str:
    """The SHA-256 of the names and shapes of all tensors of a network."""
    lines = "\n".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()

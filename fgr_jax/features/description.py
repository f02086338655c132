"""What the features of a split depend on; a digest of it is the name of their folder."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax.config import Config
from fgr_jax.data.identity import DataIdentity
from fgr_jax.data.prepare.listing import counted
from fgr_jax.models.network import Network, frozen_output_shapes, frozen_variables

# Increased whenever the files of the same features would be others, or differently arranged.
_FORMAT = 1
IMAGES_PER_BATCH = 32  # at most this many views are computed at a time, unless an image has more
SHARD_BYTES = 256_000_000
SHARD_IMAGES = 1024  # at most; what is computed of a shard is lost when the process is killed
_NAME_DIGITS = 16

# Fields of the config that change an image, beside those of its views.
_OF_IMAGES = ("cut_bottom", "resize", "crop", "max_pixels", "corrupt_images")
# Fields of the network that change nothing in what is frozen.
_WITHOUT_EFFECT = ("head", "head_from_features", "drop_path", "norm_group", "remat")


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """The features of a split: what they depend on, and how they are arranged in files.

    Attributes:
      examples: the number of images.
      views: the number of views of each.
      shapes: the shape of each array of a view.
      dtypes: likewise its dtype.
      depends_on: everything else that changes a value, as a JSON object.
      data_set: the name of the data set, for readers; it decides nothing.
    """

    examples: int
    views: int
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    depends_on: Mapping[str, Any]
    data_set: str

    @property
    def name(self) -> str:
        """The name of the folder."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_NAME_DIGITS]

    @property
    def bytes_per_image(self) -> int:
        sizes = zip(self.shapes, self.dtypes, strict=True)
        return self.views * sum(
            math.prod(shape) * jnp.dtype(kind).itemsize for shape, kind in sizes
        )

    @property
    def batch_images(self) -> int:
        """The number of images that are computed at a time."""
        return max(1, IMAGES_PER_BATCH // self.views)

    @property
    def shard_images(self) -> int:
        """The number of images in a shard, a multiple of `batch_images`; the last may have fewer."""
        images = min(SHARD_BYTES // self.bytes_per_image, SHARD_IMAGES)
        return max(1, images // self.batch_images) * self.batch_images

    @property
    def shards(self) -> list[range]:
        """The images of each shard."""
        starts = range(0, self.examples, self.shard_images)
        return [range(start, min(start + self.shard_images, self.examples)) for start in starts]

    def __str__(self) -> str:
        """Such as "5,994 × 4 views of 14×14×1280, 12.0 GB"."""
        shapes = " and ".join("×".join(map(str, shape)) for shape in self.shapes)
        size = in_words(self.examples * self.bytes_per_image)
        return f"{self.examples:,} × {counted(self.views, 'view')} of {shapes}, {size}"

    def to_json(self) -> dict[str, Any]:
        """Returns the JSON object that the name is a digest of."""
        return {
            "format": _FORMAT,
            "examples": self.examples,
            "views": self.views,
            "shapes": [list(shape) for shape in self.shapes],
            "dtypes": list(self.dtypes),
            "batch_images": self.batch_images,
            "shard_images": self.shard_images,
            **self.depends_on,
        }


def describe(
    config: Config, network: Network, variables: Any, data: DataIdentity, *, views: int
) -> Description:
    """Describes the features of a split.

    Args:
      config: the run.
      network: its network, with a frozen part.
      variables: its variables, on the host or the devices.
      data: the split.
      views: the number of random views of each image; 0 for its center crop.
    """
    shapes = jax.tree.leaves(frozen_output_shapes(network, config.data.crop))
    stored = config.data.features_dtype
    dtypes = [
        stored if jnp.issubdtype(leaf.dtype, jnp.floating) else str(leaf.dtype) for leaf in shapes
    ]
    # Fields that have their defaults are left out: a field that is added one day, with a default that
    # changes nothing, must not rename the folders of before.
    section = {"backbone": config.network.backbone} | {
        each.name: value
        for each in dataclasses.fields(config.network)
        if each.name not in _WITHOUT_EFFECT
        and (value := getattr(config.network, each.name)) != each.default
    }
    of_images: dict[str, Any] = {name: getattr(config.data, name) for name in _OF_IMAGES}
    if config.data.resize_method != "squash":  # which has no name in the folders of before
        of_images["resize_method"] = config.data.resize_method
    # Without a digest of their content, the name and version tell data sets apart.
    content = {"content": data.content} if data.content else {"data_set": data.data_set}
    return Description(
        examples=data.examples,
        views=max(views, 1),
        shapes=tuple(tuple(leaf.shape[1:]) for leaf in shapes),
        dtypes=tuple(dtypes),
        depends_on={
            "data": {**content, "split": data.split},
            "images": of_images,
            "crops": {"random": views, "augmentation": config.data.augmentation}
            if views
            else "center",
            "network": section,
            "code": _code_of(network, config.network.backbone),
            "normalization": [[float(each) for each in values] for values in network.normalization],
            "weights": _digest(frozen_variables(network, variables, config.data.crop)),
        },
        data_set=data.data_set,
    )


def in_words(size: int) -> str:
    """Returns a number of bytes as in "12.0 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if size >= factor:
            return f"{size / factor:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def _code_of(network: Network, backbone: str) -> str | int:
    """Returns the version of a listed backbone, or the digest of the file of the user's own."""
    path = Path(backbone.rpartition(":")[0])
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return int(getattr(network.backbone, "version", 1))


def _digest(variables: Mapping[str, Any]) -> str:
    """Returns the digest of arrays by name: of their names, shapes, dtypes and bits."""
    digest = hashlib.sha256()
    for name, leaf in sorted(jax.device_get(dict(variables)).items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape}\n".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()

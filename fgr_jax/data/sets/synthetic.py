"""Generated images, for benchmarks and tests.

Every image is a smooth random texture that compresses like a photograph. Its class is the position of a
bright square, so a network can learn it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds


@dataclasses.dataclass
class SyntheticConfig(tfds.core.BuilderConfig):
    """The number, size and texture of the images."""

    height: int = 375  # pixels
    width: int = 500
    classes: int = 10
    train_examples: int = 5994  # as many as CUB
    distinct: int = 128  # images in a split, after which they repeat under other names
    test_examples: int = 64
    texture: float = 5.5  # deviation of the finest texture in gray levels; determines the file size


class Synthetic(tfds.core.GeneratorBasedBuilder):
    """Textures with a bright square whose position is the class."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        SyntheticConfig(name="photographs", description="500×375 JPEGs of about 58 kB."),
        SyntheticConfig(
            name="tiny",
            description="A few 48×40 JPEGs; an epoch takes seconds.",
            height=40,
            width=48,
            classes=4,
            train_examples=52,
            test_examples=27,
            texture=1.0,
        ),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        class_names = [f"place {place}" for place in range(self.builder_config.classes)]
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=class_names),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self, description=__doc__, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager
        config = self.builder_config
        counts = {"train": config.train_examples, "test": config.test_examples}
        return {split: self._generate_examples(split, count) for split, count in counts.items()}

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
        config: SyntheticConfig = self.builder_config
        quality = [cv2.IMWRITE_JPEG_QUALITY, 90]
        encoded: list[bytes] = []
        for index in range(count):
            file_name = f"{split}/{index:05}.jpg"
            label = index % config.distinct % config.classes
            if index < config.distinct:
                image = _image(np.random.default_rng([len(split), index]), label, config)
                encoded.append(cv2.imencode(".jpg", image, quality)[1].tobytes())
            data = encoded[index % config.distinct]
            yield file_name, {"image": data, "label": label, "file_name": file_name}


def _image(rng: np.random.Generator, label: int, config: SyntheticConfig) -> npt.NDArray[np.uint8]:
    """Returns a texture `[height, width, 3]` with the bright square of the class."""
    height, width = config.height, config.width
    image = np.full((height, width, 3), 96.0, np.float32)
    # Coarse to fine, like the falling spectrum of a photograph.
    for cells, strength in ((4, 24.0), (16, 16.0), (64, 8.0)):
        coarse = rng.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, config.texture, (height, width, 1)).astype(np.float32)
    side = min(height, width) // 4
    columns = -(-config.classes // 2)
    top = (label // columns) * (height - side)
    left = (label % columns) * (width - side) // max(columns - 1, 1)
    image[top : top + side, left : left + side] += 96
    return np.clip(image, 0, 255).astype(np.uint8)

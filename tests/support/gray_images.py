"""A data set in memory."""

import dataclasses
from typing import SupportsIndex

import cv2
import numpy as np

from fgr_jax.data.source import Example


@dataclasses.dataclass
class GrayImages:
    """A data set in memory: image i is of gray level i throughout, and has label i."""

    count: int
    data_set: str = "gray"
    split: str = "train"
    part_count: int = 0
    corrupt: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: SupportsIndex) -> Example:
        i = int(index)
        data = cv2.imencode(".png", np.full((8, 8), i, np.uint8))[1].tobytes()
        return Example(data[:30] if i in self.corrupt else data, i, f"gray-{i}.png")

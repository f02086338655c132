"""The accuracy that the paper reports for its data sets (tables 2 and 3), in %."""

import dataclasses

from fgr_jax.config import Data


@dataclasses.dataclass(frozen=True, slots=True)
class PaperAccuracy:
    """Top-1 accuracy of ResNet-50 with the block and GCE at 448×448 pixels, in %."""

    # Of the data set.
    title: str
    one_crop: float
    five_crops: float | None


_BY_DATA_SET = {
    "cub": PaperAccuracy("CUB-200-2011", 87.7, 88.6),
    "aircraft": PaperAccuracy("FGVC-Aircraft", 92.1, 93.5),
    "cars": PaperAccuracy("Stanford Cars", 94.3, 94.9),
    "dogs": PaperAccuracy("Stanford Dogs", 87.1, 87.7),
    "gtos_mobile": PaperAccuracy("GTOS-mobile", 85.0, None),
}


def paper_accuracy(data: Data) -> PaperAccuracy | None:
    """Returns the paper's figures for a data set; None where it has none, or for another split."""
    return _BY_DATA_SET.get(data.name) if data.test_split == "test" else None

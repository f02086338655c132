"""ELPV: electroluminescence photographs of solar cells.

2,624 grayscale images of 300×300 pixels, each with a cell type (mono- or polycrystalline) and the
probability of a defect (0, 1/3, 2/3, 1). The images come with the package `elpv-dataset` and are
licensed under CC BY-NC-SA 4.0: they are read from the installed package and never copied here.

    Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
    Electroluminescence Imagery", EU PVSEC 2018.
"""

import collections
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import tensorflow_datasets as tfds
from etils import epath

from fgr_jax.data.prepare.listing import read_text, split_lines
from fgr_jax.errors import UserError

LICENSE = "CC BY-NC-SA 4.0"
TEST_FRACTION = 0.25
# labels.csv writes 0.3333333333333333 and 0.6666666666666666.
LEVELS = ("functional", "level 1/3", "level 2/3", "defective")
TYPES = ("mono", "poly")
_TOLERANCE = 0.01  # thirds


class Cell(NamedTuple):
    """One row of `labels.csv`."""

    file_name: str  # "images/cell0001.png", relative to labels.csv
    level: int  # 0..3, thirds of the defect probability
    cell_type: str  # "mono" or "poly"


def class_names(variant: str) -> list[str]:
    """Returns the names of the classes in label order."""
    if variant == "eight":
        return [f"{cell_type}, {level}" for cell_type in TYPES for level in LEVELS]
    return list(LEVELS) if variant == "levels" else ["functional", "defective"]


def class_of(cell: Cell, variant: str) -> int:
    """Returns the label of `cell`, an index into `class_names(variant)`."""
    if variant == "eight":
        return TYPES.index(cell.cell_type) * len(LEVELS) + cell.level
    return cell.level if variant == "levels" else int(cell.level > 0)


class Elpv(tfds.core.GeneratorBasedBuilder):
    """Solar cells that differ in faint cracks and dark areas."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="eight", description="Cell type × defect level, 8 classes."),
        tfds.core.BuilderConfig(name="levels", description="Defect level, 4 classes."),
        tfds.core.BuilderConfig(name="defective", description="Level 0 against the rest."),
    ]

    def __init__(self, *, source: Path | None = None, **kwargs: Any):
        """Reads `source`, the folder with `labels.csv`; None: that of the installed package."""
        self._source = source
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=class_names(self.builder_config.name)),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(features),
            homepage="https://github.com/zae-bayern/elpv-dataset",
            license=LICENSE,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager  # nothing is downloaded: the package contains the images
        source = self._source if self._source is not None else installed_source()
        splits = stratified_split(read_labels(source / "labels.csv"))
        return {
            split: self._generate_examples(source, cells)
            for split, cells in zip(("train", "test"), splits, strict=True)
        }

    def _generate_examples(
        self, source: Path, cells: Sequence[Cell]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for cell in cells:
            # For a path, tfds stores the bytes of the file without re-encoding.
            image = epath.Path(source / cell.file_name)
            label = class_of(cell, self.builder_config.name)
            yield cell.file_name, {"image": image, "label": label, "file_name": cell.file_name}


def installed_source() -> Path:
    """Returns the folder of the installed `elpv-dataset` package that holds `labels.csv`.

    Raises:
      UserError: the package is not installed.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the ELPV images are not installed: run `pip install elpv-dataset` "
            f"(90 MB, license of the images: {LICENSE})"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def read_labels(path: Path) -> list[Cell]:
    """Reads `labels.csv`: path, defect probability and cell type, separated by spaces."""
    cells: dict[str, Cell] = {}
    for number, line in enumerate(split_lines(read_text(path)), start=1):
        if not line.strip():
            continue
        try:
            file_name, probability, cell_type = line.split()
            thirds = float(probability) * (len(LEVELS) - 1)
            level = round(thirds)
            is_third = abs(thirds - level) < _TOLERANCE
            if cell_type not in TYPES or not 0 <= level < len(LEVELS) or not is_third:
                raise ValueError
        except (ValueError, OverflowError):  # the second of an infinite probability
            raise UserError(
                f"{path}, line {number}: {line.strip()!r} is not 'FILE PROBABILITY TYPE' with a "
                "probability of 0, 1/3, 2/3 or 1 and type mono or poly: reinstall elpv-dataset"
            ) from None
        if file_name in cells:
            raise UserError(
                f"{path}, line {number}: {line.strip()!r} is the second line of {file_name}: reinstall "
                "elpv-dataset"
            )
        cells[file_name] = Cell(file_name, level, cell_type)
    return list(cells.values())


def stratified_split(cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Splits into (train, test), three quarters and one quarter.

    Within each of the eight classes the quarter with the smallest SHA-256 of its file name is the
    test set. The split depends only on file names and labels, so it is the same on every machine and for
    all three variants.
    """
    by_class: dict[int, list[Cell]] = collections.defaultdict(list)
    for cell in cells:
        by_class[class_of(cell, "eight")].append(cell)
    train: list[Cell] = []
    test: list[Cell] = []
    for _, members in sorted(by_class.items()):
        members.sort(key=lambda cell: hashlib.sha256(cell.file_name.encode()).digest())
        cut = round(len(members) * TEST_FRACTION)
        test += members[:cut]
        train += members[cut:]
    return train, test

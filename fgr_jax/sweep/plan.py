"""Sweeps: rows of overrides, each run with several seeds.

A file in `configs/sweeps/` defines `get_sweep() -> Sweep`.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from fgr_jax.errors import UserError
from fgr_jax.files import python_files
from fgr_jax.files.names import shortened

_NO_LETTER = re.compile(r"[^\w.+-]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One setting, and the accuracy that the paper reports for it."""

    name: str
    overrides: Mapping[str, object]  # of config fields by their command-line names: {"loss.k": 15}
    paper: float | None = None  # the paper's top-1 accuracy, in %, with the config of the sweep
    published: str = ""  # what another paper reports of it, with its own network: "75.4 (VGG-16)"
    x: float | None = None  # its position on the x axis of a "line" figure

    def with_overrides(self, overrides: Mapping[str, object]) -> "Row":
        """Returns the row with more overrides, which take precedence over its own."""
        return dataclasses.replace(self, overrides={**self.overrides, **overrides})

    @property
    def folder(self) -> str:
        """The name of the folder that holds its runs."""
        return shortened(_NO_LETTER.sub("-", self.name).strip("-"))


@dataclasses.dataclass(frozen=True, slots=True)
class Search:
    """A field whose value each row chooses for itself, on images that are kept out of training.

    The value with the highest accuracy on the fold is chosen, in runs with seed 0.
    """

    field: str  # by its command-line name: "optimizer.learning_rate"
    values: tuple[float | str, ...]
    fold: str = "1/5"  # of the training images

    def overrides(self, value: float | str) -> dict[str, object]:
        """Returns the overrides of the run that tries a value."""
        return {self.field: value, "data.fold": self.fold}


@dataclasses.dataclass(frozen=True, slots=True)
class Sweep:
    """Rows of a table, and the figure that shows them."""

    title: str
    config: str  # a config file: configs/cub.py
    rows: list[Row]
    seeds: int = 3  # runs of each row, with the seeds 0, 1, ...
    # Instead, runs of each row with seed 0, each tested on one of so many folds of the training images.
    folds: int = 0
    # "points": accuracies in a column; "line": over the rows' x; "curves": test error over epochs.
    figure: str = "points"
    x_label: str = ""
    log_x: bool = False
    search: Search | None = None
    # Systems that are not run: their names, and what is published of them and why they do not run.
    not_run: Mapping[str, str] = dataclasses.field(default_factory=dict)
    baseline: str = ""  # the name of the row that the others are compared with, image by image


def load(path: Path) -> Sweep:
    """Returns the sweep that a file defines.

    Raises:
      UserError: the file is missing or fails, or rows have names that make no folders of their own.
    """
    sweep = python_files.load(path, "get_sweep", Sweep, flag="--sweep")
    by_folder: dict[str, str] = {}
    for row in sweep.rows:
        if not row.folder.strip("."):
            raise UserError(
                f"--sweep={path}: the row {row.name!r} needs a name with a letter or digit"
            )
        # Not all file systems distinguish case.
        other = by_folder.setdefault(row.folder.casefold(), row.name)
        if other is not row.name:
            raise UserError(
                f"--sweep={path}: two rows have the same name, {other!r} and {row.name!r}, but for what "
                "the name of a folder does not distinguish"
            )
    if sweep.folds == 1 or (sweep.folds and sweep.search):
        raise UserError(
            f"--sweep={path}: folds={sweep.folds}: must be 0 or at least 2, and 0 with a search, "
            "which has a fold of its own"
        )
    if sweep.baseline and all(row.name != sweep.baseline for row in sweep.rows):
        raise UserError(f"--sweep={path}: baseline={sweep.baseline!r} is the name of no row")
    return sweep

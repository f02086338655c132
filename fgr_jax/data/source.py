"""Prepared tfds data sets, opened by name."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, SupportsIndex

import numpy as np
import numpy.typing as npt
import tensorflow_datasets as tfds

from fgr_jax.config import Data
from fgr_jax.data.identity import DataIdentity
from fgr_jax.data.prepare import variants
from fgr_jax.data.prepare.bucket_copy import copy_from_bucket
from fgr_jax.data.prepare.preparation import local_data_dir, warn_of_copies
from fgr_jax.data.prepare.prepared import Prepared, Records, open_prepared
from fgr_jax.data.prepare.used_splits import (
    TEST,
    TRAIN,
    VALIDATION,
    Used,
    copies,
    used_splits,
    with_splits,
)
from fgr_jax.data.read_ahead import map_ahead
from fgr_jax.data.sets import catalog
from fgr_jax.errors import UserError
from fgr_jax.files import buckets
from fgr_jax.terminal import Terminal

_PARTS = "part_locations"  # the feature, as `sets.cub` stores it
_READERS, _READ_AHEAD = 4, 32  # threads, and records, whose labels are read


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """A record as it was stored."""

    encoded_image: bytes
    label: int
    name: str  # the file's own name where the data set keeps one, otherwise the index
    # x and y in pixels and visibility of each annotated part in turn; empty without annotations.
    part_locations: tuple[float, ...] = ()


class ExampleSource:
    """Random access to the examples of a split, for Grain to read from."""

    def __init__(self, prepared: Prepared, used: Used):
        self._records = Records(prepared, used.records)
        self._rows: Sequence[int] | npt.NDArray[np.integer] = range(len(self._records))
        if used.rows is not None:
            self._rows = used.rows
        self._listed = used.listed
        self.split = split = used.name
        self.contents = prepared.contents
        self.data_set = prepared.name
        self.identity = DataIdentity(
            self.data_set, split, len(self._rows), prepared.contents.digest
        )
        info = prepared.builder.info
        self.class_names = list(prepared.contents.class_names)
        shape: tuple[int, ...] = info.features[_PARTS].shape if _PARTS in info.features else ()
        # The number of annotated parts in every image; 0 in most data sets.
        self.part_count = shape[0] if len(shape) == 2 and shape[1] == 3 else 0
        self.license: str = info.as_proto.redistribution_info.license

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: SupportsIndex) -> Example:
        row = int(self._rows[index.__index__()])
        record = self._records[row]
        return Example(
            encoded_image=record["image"].bytes_list.value[0],
            label=self._label(record, row),
            name=self._records.file_name(record, row),
            part_locations=tuple(record[_PARTS].float_list.value) if self.part_count else (),
        )

    def labels(self, terminal: Terminal) -> npt.NDArray[np.int32]:
        """Returns the labels of all examples, `[N]`.

        All records are read for that, unless rows were selected by what is known of each image.

        Raises:
          UserError: a label is none of the classes.
        """
        if self._listed is not None:
            return np.array(self._listed.labels, np.int32)[self._rows]

        def label(row: int) -> int:
            return self._label(self._records[row], row)

        found = np.empty(len(self), np.int32)
        rows = map(int, self._rows)
        with terminal.bar("reading labels", len(self), unit="images", per=1) as bar:
            read = map_ahead(label, rows, threads=_READERS, ahead=_READ_AHEAD)
            for index, value in enumerate(read):
                found[index] = value
                bar.update(index + 1)
        return found

    def _label(self, record: Any, row: int) -> int:
        label = int(record["label"].int64_list.value[0])
        if not 0 <= label < len(self.class_names):
            raise UserError(
                f"data set {self.data_set}, split {self.split}, example {row} has the label "
                f"{label}, which is none of its {len(self.class_names)} classes: "
                "choose a split that is labeled"
            )
        return label


class Sources(NamedTuple):
    """The splits of a run."""

    train: ExampleSource
    test: ExampleSource
    # What it is evaluated on while it trains; None: the test split.
    validation: ExampleSource | None

    @property
    def evaluated(self) -> dict[str, ExampleSource]:
        """The splits to evaluate on, by name; that for testing is the last."""
        of_validation = {} if self.validation is None else {VALIDATION: self.validation}
        return {**of_validation, TEST: self.test}


def open_splits(
    data: Data, terminal: Terminal, recorded: DataIdentity | None = None
) -> tuple[ExampleSource, ExampleSource]:
    """Opens (train, test) as `open_sources` does."""
    sources = open_sources(data, terminal, recorded)
    return sources.train, sources.test


def open_sources(data: Data, terminal: Terminal, recorded: DataIdentity | None = None) -> Sources:
    """Opens the splits after `catalog.prepare_on_demand` has prepared the data set if it can.

    Args:
      data: the data set and its splits.
      terminal: shows the progress.
      recorded: what the run was trained on that is resumed or evaluated, if any.

    Raises:
      NotPreparedError: the data set is not prepared, or damaged.
      UserError: the data set lacks `image`, `label` or a split.
    """
    prepared = _open(data, terminal, recorded)
    features = prepared.builder.info.features
    missing = {"image", "label"} - set(features)
    if missing:
        raise UserError(
            f"data set {prepared.name} lacks the feature "
            f"{' and '.join(sorted(missing))}: --config.data.name needs one with image and label"
        )
    if not isinstance(features["label"], tfds.features.ClassLabel):
        raise UserError(
            f"data set {prepared.name}: its label is {features['label']}, and "
            "--config.data.name needs one whose label is a ClassLabel"
        )
    used = used_splits(prepared, data, terminal)
    if recorded is None:
        warn_of_copies(copies(used), terminal)
    prepared = prepared._replace(contents=with_splits(prepared.contents, used))
    sources = {name: ExampleSource(prepared, each) for name, each in used.items()}
    for name, source in sources.items():
        if len(source) == 0:
            raise UserError(f"--config.data.{used[name].field}={source.split!r} holds no examples")
    return Sources(sources[TRAIN], sources[TEST], sources.get(VALIDATION))


def completed(
    recorded: DataIdentity, opened: DataIdentity, data: Data, terminal: Terminal
) -> DataIdentity:
    """Returns `recorded` with its content where that can be found out and is needed.

    Older versions recorded the name of the prepared data set alone. If that is still prepared, and is
    another than the opened one, its content tells whether both are the same.
    """
    if recorded.content or recorded.data_set == opened.data_set:
        return recorded
    return variants.with_content(recorded, _data_dir(data, terminal), terminal)


def _open(data: Data, terminal: Terminal, recorded: DataIdentity | None) -> Prepared:
    data_dir = _data_dir(data, terminal)
    prepared = catalog.prepare_on_demand(data, data_dir, terminal, recorded=recorded)
    return prepared or open_prepared(data.name, data_dir)


def _data_dir(data: Data, terminal: Terminal) -> Path:
    """Returns the folder on this machine in which the data set is prepared, or to be prepared."""
    if buckets.is_in_bucket(data.data_dir):
        copies = local_data_dir() / "from_buckets"
        return copy_from_bucket(data.data_dir, data.name, copies, terminal)
    return local_data_dir(data.data_dir)

"""Prepared tfds data sets, opened by name."""

import dataclasses
from pathlib import Path
from typing import Any, SupportsIndex

import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.proto import tf_example_pb2

from fgr_jax.config import Data
from fgr_jax.data.prepare.bucket_copy import copy_from_bucket
from fgr_jax.data.prepare.preparation import default_data_dir, prepare_folder, quiet_tfds
from fgr_jax.data.sets.elpv import Elpv
from fgr_jax.data.sets.folder import Folder
from fgr_jax.data.sets.synthetic import Synthetic
from fgr_jax.errors import UserError
from fgr_jax.files import buckets
from fgr_jax.terminal import Terminal

# What needs no download: an installed package carries it, or it is generated.
_PREPARED_ON_DEMAND: dict[str, type[tfds.core.GeneratorBasedBuilder]] = {
    "elpv": Elpv,
    "synthetic": Synthetic,
}

_PARTS = "part_locations"  # the feature, as `datasets.cub` stores it


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One record as it was stored."""

    encoded_image: bytes
    label: int
    name: str  # the file's own name where the data set keeps one, otherwise split and index
    # Of each annotated part in turn: x, y, in pixels, and whether it is visible. Empty: no annotations.
    part_locations: tuple[float, ...] = ()


class ExampleSource:
    """Random access to the examples of one split; what Grain reads from."""

    def __init__(self, builder: Any, split: str):
        try:
            self._records = builder.as_data_source(
                split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
            )
        except NotImplementedError as error:
            raise UserError(
                f"data set {builder.info.full_name} is prepared as {builder.info.file_format.name}, "
                "without random access: prepare it with tfds's file_format='array_record'"
            ) from error
        except (ValueError, TypeError) as error:
            splits = ", ".join(builder.info.splits)
            raise UserError(
                f"data set {builder.info.full_name} has no split {split!r} (it has: {splits}): {error}"
            ) from error
        self.split = split
        self.identity = f"{builder.info.full_name} {split}: {len(self._records)} examples"
        self.data_set = builder.info.full_name
        self.class_names: list[str] = list(builder.info.features["label"].names)
        self.part_count = _part_count(builder.info.features)
        self.license: str = builder.info.as_proto.redistribution_info.license

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        # Only what is needed: tfds would turn every feature into an array, for more time than reading.
        record = tf_example_pb2.Example.FromString(self._records[index]).features.feature
        label = record["label"].int64_list.value[0]
        if not 0 <= label < len(self.class_names):
            raise UserError(
                f"data set {self.data_set}, split {self.split}, example {int(index)} has the label "
                f"{label}, which is none of its {len(self.class_names)} classes: "
                "choose a split that is labeled"
            )
        return Example(
            encoded_image=record["image"].bytes_list.value[0],
            label=label,
            name=_file_name(record) or f"example {int(index)}",
            part_locations=(tuple(record[_PARTS].float_list.value) if self.part_count else ()),
        )


def _part_count(features: Any) -> int:
    """How many parts are annotated in every picture; 0 where none are, as in most data sets."""
    shape: tuple[int, ...] = features[_PARTS].shape if _PARTS in features else ()
    return int(shape[0]) if len(shape) == 2 and shape[1] == 3 else 0


def _file_name(record: Any) -> str:
    """What the data set calls the picture; empty where it keeps no name."""
    for feature in ("file_name", "image/filename"):
        if feature in record:
            return record[feature].bytes_list.value[0].decode()
    return ""


def needs_no_download(name: str) -> bool:
    """Whether the data set `name` is prepared by whoever opens it first."""
    return name.partition("/")[0] in _PREPARED_ON_DEMAND


class NotPreparedError(UserError):
    """The data set that a config names is not on this machine."""


def open_splits(data: Data, terminal: Terminal) -> tuple[ExampleSource, ExampleSource]:
    """Opens (train, test). What needs no download is prepared on the way.

    Raises:
      NotPreparedError: the data set is not prepared.
      UserError: the data set lacks `image`, `label` or a split.
    """
    builder = _open(data, terminal)
    missing = {"image", "label"} - set(builder.info.features)
    if missing:
        raise UserError(
            f"data set {builder.info.full_name} lacks the feature "
            f"{' and '.join(sorted(missing))}: --config.data.name needs one with image and label"
        )
    if not isinstance(builder.info.features["label"], tfds.features.ClassLabel):
        raise UserError(
            f"data set {builder.info.full_name}: its label is {builder.info.features['label']}, and "
            "--config.data.name needs one whose label is a ClassLabel"
        )
    train = ExampleSource(builder, data.train_split)
    test = ExampleSource(builder, data.test_split)
    for source, field in ((train, "train_split"), (test, "test_split")):
        if len(source) == 0:
            raise UserError(f"--config.data.{field}={source.split!r} holds no example")
    return train, test


def _open(data: Data, terminal: Terminal) -> Any:
    name = data.name
    if buckets.is_in_bucket(data.data_dir):
        copies = default_data_dir() / "from_buckets"
        data_dir = copy_from_bucket(data.data_dir, name, copies, terminal)
    else:
        data_dir = Path(data.data_dir).expanduser() if data.data_dir else default_data_dir()
    if name == Folder.name:
        name = prepare_folder(data.folder, data_dir, terminal)
    try:
        return read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except tfds.core.DatasetNotFoundError:
        pass
    except ValueError as error:  # a name that tfds cannot take apart
        raise UserError(f"--config.data.name={data.name!r}: {error}") from error
    name, _, variant = data.name.partition("/")
    if name not in _PREPARED_ON_DEMAND:
        raise NotPreparedError(f"data set {data.name!r} is not prepared in {data_dir}")
    builder_class = _PREPARED_ON_DEMAND[name]
    variants = [config.name for config in builder_class.BUILDER_CONFIGS]
    if variant and variant not in variants:
        raise UserError(
            f"--config.data.name={data.name!r}: the variants of {name} are " + ", ".join(variants)
        )
    builder = builder_class(
        config=variant or variants[0], data_dir=str(data_dir), file_format="array_record"
    )
    with quiet_tfds():
        builder.download_and_prepare()
    return builder

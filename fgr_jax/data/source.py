"""Prepared tfds data sets, opened by name."""

import dataclasses
from typing import Any, SupportsIndex

import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder
from tensorflow_datasets.proto import tf_example_pb2

from fgr_jax.config import Data
from fgr_jax.data.identity import DataIdentity
from fgr_jax.data.prepare.bucket_copy import copy_from_bucket
from fgr_jax.data.prepare.preparation import local_data_dir
from fgr_jax.data.sets import catalog
from fgr_jax.errors import UserError
from fgr_jax.files import buckets
from fgr_jax.terminal import Terminal

_PARTS = "part_locations"  # the feature, as `sets.cub` stores it
_FILE_NAMES = ("file_name", "image/filename")  # the features; tfds's own data sets use the second


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
        self.identity = DataIdentity(builder.info.full_name, split, len(self._records))
        self.data_set = builder.info.full_name
        features = builder.info.features
        self.class_names: list[str] = list(features["label"].names)
        shape: tuple[int, ...] = features[_PARTS].shape if _PARTS in features else ()
        # The number of annotated parts in every image; 0 in most data sets.
        self.part_count = shape[0] if len(shape) == 2 and shape[1] == 3 else 0
        self.license: str = builder.info.as_proto.redistribution_info.license

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: SupportsIndex) -> Example:
        # Only the needed features are parsed: tfds would turn all of them into arrays, which takes
        # longer than reading.
        record = tf_example_pb2.Example.FromString(self._records[index]).features.feature
        label = record["label"].int64_list.value[0]
        if not 0 <= label < len(self.class_names):
            raise UserError(
                f"data set {self.data_set}, split {self.split}, example {int(index)} has the label "
                f"{label}, which is none of its {len(self.class_names)} classes: "
                "choose a split that is labeled"
            )
        names = [record[feature] for feature in _FILE_NAMES if feature in record]
        name = names[0].bytes_list.value[0].decode() if names else ""
        return Example(
            encoded_image=record["image"].bytes_list.value[0],
            label=label,
            name=name or f"example {int(index)}",
            part_locations=tuple(record[_PARTS].float_list.value) if self.part_count else (),
        )


class NotPreparedError(UserError):
    """The data set that a config names is not on this machine."""


def open_splits(data: Data, terminal: Terminal) -> tuple[ExampleSource, ExampleSource]:
    """Opens (train, test) after `catalog.prepare_on_demand` has prepared the data set if it can.

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
            raise UserError(f"--config.data.{field}={source.split!r} holds no examples")
    return train, test


def _open(data: Data, terminal: Terminal) -> Any:
    if buckets.is_in_bucket(data.data_dir):
        copies = local_data_dir() / "from_buckets"
        data_dir = copy_from_bucket(data.data_dir, data.name, copies, terminal)
    else:
        data_dir = local_data_dir(data.data_dir)
    name = catalog.prepare_on_demand(data, data_dir, terminal) or data.name
    try:
        return read_only_builder.builder_from_files(name, data_dir=str(data_dir))
    except tfds.core.DatasetNotFoundError:
        raise NotPreparedError(f"data set {data.name!r} is not prepared in {data_dir}") from None
    except ValueError as error:  # tfds cannot parse it
        raise UserError(
            f"--config.data.name={data.name!r}: is not the name of a tfds data set, NAME or "
            f"NAME/VARIANT ({error})"
        ) from error

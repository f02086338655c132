"""The stream of batches: who decodes changes nothing, and nothing is lost or seen twice."""

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any, SupportsIndex

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import flags
from tiny_run import QUIET

from fgr_jax.config import Config, Data, Runtime
from fgr_jax.datasets.synthetic import Synthetic
from fgr_jax.errors import UserError
from fgr_jax.input.pipeline import Batch, Share, evaluation_batches, training_batches
from fgr_jax.input.source import Example, ExampleSource, open_splits


@dataclasses.dataclass
class Pictures:
    """In memory: picture i is all of grey level i, and has label i."""

    count: int
    data_set: str = "pictures"
    split: str = "train"
    corrupt: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: SupportsIndex) -> Example:
        i = int(index)
        data = cv2.imencode(".png", np.full((8, 8), i, np.uint8))[1].tobytes()
        return Example(data[:30] if i in self.corrupt else data, i, f"grey-{i}.png")


SMALL = Data(name="pictures", resize=8, crop=6, augmentation="dihedral")
THREADS = Runtime(decode_threads=2)
ALONE = Share(4)


def stream(
    source: Pictures | ExampleSource,
    data: Data = SMALL,
    runtime: Runtime = THREADS,
    share: Share = ALONE,
    seed: int = 0,
    steps: range = range(6),
) -> list[Batch]:
    return list(training_batches(source, data, runtime, share, seed=seed, steps=steps))


def assert_same(ours: list[Batch], theirs: list[Batch]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("image", "label", "mask"):
            np.testing.assert_array_equal(one[name], other[name])


@pytest.fixture(scope="session")
def photographs(data_dir: object) -> ExampleSource:
    return open_splits(Data(name="synthetic/tiny", data_dir=str(data_dir)), QUIET)[0]


CROPPED = Data(name="synthetic/tiny", resize=36, crop=32, augmentation="dihedral")


@pytest.mark.parametrize(
    "runtime",
    [
        Runtime(decode_threads=1),
        Runtime(decode_threads=7),
        Runtime(decode_threads=1, decode_workers=1),
        Runtime(decode_threads=2, decode_workers=3),
    ],
    ids=str,
)
def test_threads_and_workers_change_nothing(photographs: ExampleSource, runtime: Runtime) -> None:
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    expected = stream(photographs, CROPPED)
    assert_same(stream(photographs, CROPPED, runtime), expected)


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_rows_of_the_same_global_batches(
    photographs: ExampleSource, processes: int
) -> None:
    expected = stream(photographs, CROPPED, share=Share(8))
    shares = [
        stream(photographs, CROPPED, share=Share(8, process, processes))
        for process in range(processes)
    ]
    joined: list[Batch] = [
        {
            "image": np.concatenate([row["image"] for row in rows]),
            "label": np.concatenate([row["label"] for row in rows]),
            "mask": np.concatenate([row["mask"] for row in rows]),
        }
        for rows in zip(*shares, strict=True)
    ]
    assert_same(joined, expected)


@pytest.mark.parametrize("first", [1, 4, 13])
def test_a_stream_can_be_entered_at_any_step(photographs: ExampleSource, first: int) -> None:
    whole = stream(photographs, CROPPED, steps=range(16))
    assert_same(stream(photographs, CROPPED, steps=range(first, 16)), whole[first:])


def test_an_epoch_shows_every_picture_once_and_orders_differ() -> None:
    labels = np.concatenate([b["label"] for b in stream(Pictures(10), steps=range(10))])
    epochs = labels.reshape(4, 10)  # 10 batches of 4 run on across the ends of 4 epochs
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = np.concatenate([b["label"] for b in stream(Pictures(10), seed=1, steps=range(10))])
    assert (labels != other).any()


def test_pictures_and_labels_stay_together() -> None:
    for batch in stream(Pictures(10)):
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
        assert batch["image"].shape == (4, 6, 6, 3)
        assert batch["mask"].all()


@pytest.mark.parametrize(("augmentation", "symmetries"), [("flip", 2), ("dihedral", 8)])
def test_every_crop_and_symmetry_occurs(augmentation: str, symmetries: int) -> None:
    class Ramp(Pictures):
        def __getitem__(self, index: SupportsIndex) -> Example:
            ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
            return Example(cv2.imencode(".png", ramp)[1].tobytes(), 0, "ramp.png")

    data = dataclasses.replace(SMALL, crop=7, augmentation=augmentation)
    batches = stream(Ramp(1), data, steps=range(250))
    seen = collections.Counter(image.tobytes() for batch in batches for image in batch["image"])
    assert len(seen) == 2 * 2 * symmetries  # 2×2 places for 7 in 8 pixels
    expected = 1000 / len(seen)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in seen.values())


@pytest.mark.parametrize("count", [1, 4, 7, 8])
@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_reads_every_picture_once_and_masks_the_rest(count: int, processes: int) -> None:
    seen: list[int] = []
    for process in range(processes):
        share = Share(4, process, processes)
        batches = list(evaluation_batches(Pictures(count), SMALL, THREADS, share))
        assert len(batches) == -(-count // 4)
        assert all(len(batch["label"]) == share.local_batch_size for batch in batches)
        seen += [int(label) for b in batches for label in b["label"][b["mask"]]]
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_picture_stops_and_is_named(workers: int) -> None:
    source = Pictures(10, corrupt=frozenset({3}))
    runtime = Runtime(decode_threads=2, decode_workers=workers)
    with pytest.raises(
        UserError, match=r"data set pictures, split train: grey-3.png is truncated; .*=skip"
    ):
        stream(source, runtime=runtime)
    with pytest.raises(UserError, match=r"grey-3.png is truncated"):
        list(evaluation_batches(source, SMALL, runtime, Share(4)))


def test_a_corrupt_picture_is_skipped_and_masked_when_asked() -> None:
    data = dataclasses.replace(SMALL, corrupt_images="skip")
    source = Pictures(10, corrupt=frozenset({3, 5}))
    batches = stream(source, data, steps=range(5))  # two epochs
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    assert collections.Counter(labels.tolist()) == {i: 2 for i in range(10) if i not in (3, 5)}
    batches = list(evaluation_batches(source, data, THREADS, Share(4)))
    assert sum(int(batch["mask"].sum()) for batch in batches) == 8


def test_open_splits_names_what_is_wrong(data_dir: object) -> None:
    here: Any = {"data_dir": str(data_dir)}
    with pytest.raises(UserError, match=r"data set 'cub' is not prepared in"):
        open_splits(Data(name="cub", **here), QUIET)
    with pytest.raises(UserError, match=r"has no split 'val' \(it has: train, test\)"):
        open_splits(Data(name="synthetic/tiny", test_split="val", **here), QUIET)
    with pytest.raises(UserError, match=r"has no split 'test\[:0\]'"):
        open_splits(Data(name="synthetic/tiny", test_split="test[:0]", **here), QUIET)
    with pytest.raises(UserError, match=r"variants of synthetic are photographs, tiny"):
        open_splits(Data(name="synthetic/huge", **here), QUIET)


def test_a_part_of_a_split_can_be_held_out(data_dir: object) -> None:
    data = Data(
        name="synthetic/tiny",
        data_dir=str(data_dir),
        train_split="train[:75%]",
        test_split="train[75%:]",
    )
    train, held_out = open_splits(data, QUIET)
    names = [source[i].name for source in (train, held_out) for i in range(len(source))]
    assert len(train) == 39
    assert len(set(names)) == len(names) == 52
    assert Config(data=data).data.crop == 448


def test_a_label_that_is_no_class_is_named(tmp_path: object) -> None:
    class Ages(Synthetic):
        """Pictures with a number that is no class."""

        name = "ages"

        def _info(self) -> tfds.core.DatasetInfo:
            features = {"image": tfds.features.Image(), "label": tfds.features.Scalar(np.int64)}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _generate_examples(self, split: str, count: int) -> Iterator:
            for key, example in super()._generate_examples(split, count):
                yield key, {"image": example["image"], "label": example["label"]}

    Ages(config="tiny", data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    with pytest.raises(UserError, match=r"data set ages/tiny/1.0.0: its label is .*ClassLabel"):
        open_splits(Data(name="ages/tiny", data_dir=str(tmp_path)), QUIET)

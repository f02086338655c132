"""The stream of batches: who decodes changes nothing, and nothing is lost or seen twice."""

import collections
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import cv2
import grain
import numpy as np
import official_layouts
import pytest
import tensorflow_datasets as tfds
from absl import flags
from gray_images import GrayImages
from symmetries_reference import turned_by_numpy
from tiny_run import QUIET

from fgr_jax.config import Config, Data, Runtime, validate
from fgr_jax.data import images
from fgr_jax.data.augmentation import random_view
from fgr_jax.data.batch import AnnotatedBatch, Batch, TrainingBatch
from fgr_jax.data.pipeline import (
    Share,
    WorkerError,
    annotated_batches,
    evaluation_batches,
    training_batches,
)
from fgr_jax.data.prepare.preparation import prepare
from fgr_jax.data.sets.cub import Cub
from fgr_jax.data.sets.synthetic import Synthetic
from fgr_jax.data.source import Example, ExampleSource, open_splits
from fgr_jax.errors import UserError
from fgr_jax.random_streams import Stream, stream_seed


@pytest.fixture(scope="module", autouse=True)
def _flags_are_parsed() -> None:
    """Grain's worker processes want absl's flags parsed, as every command has them."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


SMALL = Data(name="gray", resize=8, crop=6, augmentation="dihedral")
THREADS = Runtime(decode_threads=2)
ALONE = Share(4)


def stream(
    source: GrayImages | ExampleSource,
    data: Data = SMALL,
    runtime: Runtime = THREADS,
    share: Share = ALONE,
    seed: int = 0,
    steps: range = range(6),
) -> list[TrainingBatch]:
    return list(training_batches(source, data, runtime, share, seed=seed, steps=steps))


def assert_same(ours: Sequence[Batch], theirs: Sequence[Batch]) -> None:
    """Of training batches, their symmetries are compared too."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert {"image", "label", "mask"} <= set(other)
        for name in other:
            np.testing.assert_array_equal(one[name], other[name])  # type: ignore[literal-required]


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
    expected = stream(photographs, CROPPED)
    assert_same(stream(photographs, CROPPED, runtime), expected)


@pytest.mark.parametrize(("method", "workers"), [("crop", 2), ("pad", 0)])
def test_nor_do_they_for_other_geometries_and_distorted_crops(
    photographs: ExampleSource, method: str, workers: int
) -> None:
    data = dataclasses.replace(CROPPED, resize_method=method, trivial_augment=True)
    reading = functools.partial(
        training_batches, photographs, data, seed=0, steps=range(6), padding=(124, 116, 104)
    )
    expected = list(reading(runtime=THREADS, share=Share(8)))
    runtime = Runtime(decode_threads=1, decode_workers=workers)
    assert_same(list(reading(runtime=runtime, share=Share(8))), expected)
    shares = [list(reading(runtime=THREADS, share=Share(8, process, 2))) for process in (0, 1)]
    for process, batches in enumerate(shares):
        for whole, part in zip(expected, batches, strict=True):
            rows = slice(4 * process, 4 * process + 4)
            np.testing.assert_array_equal(part["image"], whole["image"][rows])
            np.testing.assert_array_equal(part["symmetry"], whole["symmetry"][rows])


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_the_rows_of_the_same_global_batches(
    photographs: ExampleSource, processes: int
) -> None:
    expected = stream(photographs, CROPPED, share=Share(8))
    shares = [
        stream(photographs, CROPPED, share=Share(8, process, processes))
        for process in range(processes)
    ]
    joined: list[TrainingBatch] = [
        {
            "image": np.concatenate([row["image"] for row in rows]),
            "label": np.concatenate([row["label"] for row in rows]),
            "mask": np.concatenate([row["mask"] for row in rows]),
            "symmetry": np.concatenate([row["symmetry"] for row in rows]),
        }
        for rows in zip(*shares, strict=True)
    ]
    assert_same(joined, expected)


@pytest.mark.parametrize("first", [1, 4, 13])
def test_a_stream_can_be_entered_at_any_step(photographs: ExampleSource, first: int) -> None:
    whole = stream(photographs, CROPPED, steps=range(16))
    assert_same(stream(photographs, CROPPED, steps=range(first, 16)), whole[first:])


@pytest.mark.parametrize(
    ("local", "processes", "workers"),
    [*itertools.product([1, 2, 3, 16], [1, 2, 4], [0]), (1, 1, 2)],
)
def test_every_batch_size_gives_the_rows_of_one_order(
    local: int, processes: int, workers: int
) -> None:
    """Batches of one image included, in a data set that is smaller than some batches."""
    source, size = GrayImages(10), local * processes
    steps = range(1, 3 + 24 // size)
    runtime = Runtime(decode_threads=2, decode_workers=workers)
    shares = [
        stream(source, SMALL, runtime, Share(size, process, processes), steps=steps)
        for process in range(processes)
    ]
    order = reference_rows(source, steps.stop * size)[size:]
    for name in ("image", "label", "symmetry"):
        rows = [
            row
            for of_a_step in zip(*shares, strict=True)
            for batch in of_a_step
            for row in batch[name]
        ]
        np.testing.assert_array_equal(rows, [row[name] for row in order])


def reference_rows(source: GrayImages, count: int) -> list[dict[str, Any]]:
    """The first rows of the stream of `seed=0`, one by one and without batches."""
    order = grain.MapDataset.range(len(source)).shuffle(seed=stream_seed(0, Stream.ORDER))
    views = order.repeat().random_map(
        functools.partial(random_view, SMALL), seed=stream_seed(0, Stream.AUGMENTATION)
    )
    rows = []
    for view in (views[index] for index in range(count)):
        example = source[view.example]
        image = images.crops_at(images.decode(example.encoded_image), SMALL, view.places)[0]
        rows.append({"image": image, "label": example.label, "symmetry": view.symmetries[0]})
    return rows


@pytest.mark.parametrize(("count", "workers"), [(3, 0), (8, 0), (11, 0), (11, 2)])
def test_evaluation_begins_again_after_its_last_batch(count: int, workers: int) -> None:
    runtime = Runtime(decode_threads=2, decode_workers=workers)
    for share in [Share(4)] if workers else [Share(4, 0, 2), Share(4, 1, 2)]:
        once = list(evaluation_batches(GrayImages(count), SMALL, THREADS, share))
        endless = evaluation_batches(GrayImages(count), SMALL, runtime, share, rounds=None)
        before = multiprocessing.active_children()
        for _ in range(3):
            assert_same(list(itertools.islice(endless, len(once))), once)
        if workers:
            assert len(multiprocessing.active_children()) - len(before) <= workers


def test_a_worker_process_that_dies_is_named_in_time() -> None:
    runtime = Runtime(decode_threads=1, decode_workers=2)
    batches = training_batches(GrayImages(10), SMALL, runtime, ALONE, seed=0, steps=range(100_000))
    before = multiprocessing.active_children()
    next(batches)
    workers = [child for child in multiprocessing.active_children() if child not in before]
    assert len(workers) == 2
    assert workers[1].pid
    os.kill(workers[1].pid, signal.SIGKILL)
    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"SIGKILL.* memory is short.*decode_workers=0"):
        for _ in batches:
            pass
    assert time.monotonic() - started < 20


SMALL_SHARED_MEMORY = """
import sys
from absl import flags
flags.FLAGS.mark_as_parsed()
from fgr_jax.config import Data, Runtime
from fgr_jax.data import pipeline
from gray_images import GrayImages
if __name__ == "__main__":
    if sys.argv[1] == "unchecked":
        pipeline._check_shared_memory = lambda *_: None
    try:
        list(pipeline.training_batches(
            GrayImages(10), Data(name="gray", resize=256, crop=256), Runtime(decode_workers=1),
            pipeline.Share(4), seed=0, steps=range(4)
        ))
    except pipeline.WorkerError as error:
        print("told:", error)
    pipeline.signals.end(0)
"""


@pytest.mark.parametrize(
    ("checked", "told"),
    [
        ("checked", "decode_workers=1: needs 7.9 MB in /dev/shm, where 0.4 MB are free: give"),
        ("unchecked", "a decoding process found /dev/shm full (SIGBUS): give /dev/shm more"),
    ],
)
def test_shared_memory_that_is_too_small_is_named(tmp_path: Path, checked: str, told: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SMALL_SHARED_MEMORY)
    mount = 'mount -t tmpfs -o size=400k none /dev/shm && "$@"'
    done = subprocess.run(
        [
            *("unshare", "--mount", "--map-root-user", "bash", "-c", mount, "-"),
            *(sys.executable, str(script), checked),
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told in done.stdout, done.stderr
    assert "decode_workers=0" in done.stdout
    assert "Traceback" not in done.stderr


WITH_WORKERS = """
import os, signal, sys, time
from absl import flags
flags.FLAGS.mark_as_parsed()
from fgr_jax.config import Data, Runtime
from fgr_jax.data import pipeline
from gray_images import GrayImages
if __name__ == "__main__":
    batches = pipeline.training_batches(
        GrayImages(10), Data(name="gray", resize=8, crop=6, augmentation="dihedral"),
        Runtime(decode_workers=2), pipeline.Share(4), seed=0, steps=range(100_000)
    )
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: None)
    while True:
        next(batches)
        print("batch", flush=True)
        time.sleep(0.02)
"""


def test_worker_processes_leave_signals_to_the_parent_and_end_with_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(WITH_WORKERS)
    with subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "batch\n"
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM) * 2:
            os.killpg(process.pid, number)  # the resource tracker is in the group, too
            for _ in range(10):  # more than what was decoded before
                assert process.stdout.readline() == "batch\n"
        process.kill()
        process.wait()
        assert wait_until_the_group_is_gone(process.pid), "worker processes are left behind"
        assert not process.stderr.read()


def wait_until_the_group_is_gone(group: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def test_an_epoch_has_every_image_once_and_orders_differ() -> None:
    labels = np.concatenate([b["label"] for b in stream(GrayImages(10), steps=range(10))])
    epochs = labels.reshape(4, 10)  # 10 batches of 4 run on across the ends of 4 epochs
    for epoch in epochs:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = np.concatenate([b["label"] for b in stream(GrayImages(10), seed=1, steps=range(10))])
    assert (labels != other).any()


def test_images_and_labels_stay_together() -> None:
    for batch in stream(GrayImages(10)):
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"])
        assert batch["image"].shape == (4, 6, 6, 3)
        assert batch["mask"].all()


@pytest.mark.parametrize(("augmentation", "symmetries"), [("flip", 2), ("dihedral", 8)])
def test_every_crop_and_symmetry_occurs(augmentation: str, symmetries: int) -> None:
    class Ramp(GrayImages):
        def __getitem__(self, index: SupportsIndex) -> Example:
            ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
            return Example(cv2.imencode(".png", ramp)[1].tobytes(), 0, "ramp.png")

    data = dataclasses.replace(SMALL, crop=7, augmentation=augmentation)
    batches = stream(Ramp(1), data, steps=range(250))
    turned = [turned_by_numpy(batch["image"], batch["symmetry"]) for batch in batches]
    seen = collections.Counter(image.tobytes() for images in turned for image in images)
    assert len(seen) == 2 * 2 * symmetries  # 2×2 places for 7 in 8 pixels
    expected = 1000 / len(seen)
    assert all(abs(count - expected) < 5 * expected**0.5 for count in seen.values())


@pytest.mark.parametrize("count", [1, 4, 7, 8])
@pytest.mark.parametrize("processes", [1, 2])
def test_evaluation_reads_every_image_once_and_masks_the_rest(count: int, processes: int) -> None:
    seen: list[int] = []
    for process in range(processes):
        share = Share(4, process, processes)
        batches = list(evaluation_batches(GrayImages(count), SMALL, THREADS, share))
        assert len(batches) == -(-count // 4)
        assert all(len(batch["label"]) == share.local_batch_size for batch in batches)
        seen += [int(label) for b in batches for label in b["label"][b["mask"]]]
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_stops_and_is_named(workers: int) -> None:
    source = GrayImages(10, corrupt=frozenset({3}))
    runtime = Runtime(decode_threads=2, decode_workers=workers)
    with pytest.raises(
        UserError, match=r"data set gray, split train: gray-3.png is truncated; .*=skip"
    ):
        stream(source, runtime=runtime)
    with pytest.raises(UserError, match=r"gray-3.png is truncated"):
        list(evaluation_batches(source, SMALL, runtime, Share(4)))


def test_a_corrupt_image_is_skipped_and_masked_when_asked() -> None:
    data = dataclasses.replace(SMALL, corrupt_images="skip")
    source = GrayImages(10, corrupt=frozenset({3, 5}))
    batches = stream(source, data, steps=range(5))  # two epochs
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    assert collections.Counter(labels.tolist()) == {i: 2 for i in range(10) if i not in (3, 5)}
    tested = list(evaluation_batches(source, data, THREADS, Share(4)))
    assert sum(int(batch["mask"].sum()) for batch in tested) == 8
    for batch in [*batches, *tested]:
        assert not batch["image"][~batch["mask"]].any()
        assert not batch["label"][~batch["mask"]].any()


@pytest.mark.parametrize("crops", [1, 5])
def test_annotated_batches_have_the_center_crop_of_evaluation(
    photographs: ExampleSource, crops: int
) -> None:
    share = Share(8)
    annotated = list(annotated_batches(photographs, CROPPED, THREADS, share, crops=crops))
    plain = list(evaluation_batches(photographs, CROPPED, THREADS, share))
    assert_same([{**batch, "image": batch["image"][:, -1]} for batch in annotated], plain)  # type: ignore[typeddict-unknown-key]
    assert annotated[0]["image"].shape == (8, crops, 32, 32, 3)
    assert annotated[0]["parts"].shape == (8, 0, 3)
    if crops == 5:
        crops_of_one = images.test_crops(photographs[3].encoded_image, CROPPED, 5, None)
        np.testing.assert_array_equal(annotated[0]["image"][3], crops_of_one)


@pytest.mark.parametrize(("processes", "workers"), [(1, 0), (2, 0), (4, 0), (1, 1)])
def test_annotated_batches_name_every_image_once(processes: int, workers: int) -> None:
    runtime = Runtime(decode_threads=2, decode_workers=workers)
    shares = [
        list(annotated_batches(GrayImages(10), SMALL, runtime, Share(4, index, processes), crops=1))
        for index in range(processes)
    ]
    rows = [
        (name, int(label), bool(there), int(image.max()))
        for of_a_batch in zip(*shares, strict=True)
        for part in of_a_batch
        for name, label, there, image in zip(
            part["name"], part["label"], part["mask"], part["image"], strict=True
        )
    ]
    assert rows == [
        *((f"gray-{i}.png", i, True, i) for i in range(10)),
        *[("", 0, False, 0)] * 2,
    ]


@pytest.mark.parametrize(("what", "workers"), [("stop", 0), ("skip", 0), ("stop", 1)])
def test_annotated_batches_report_corrupt_images(what: str, workers: int) -> None:
    data = dataclasses.replace(SMALL, corrupt_images=what, cut_bottom=7)
    source = GrayImages(10, corrupt=frozenset({3, 5}))
    runtime = Runtime(decode_threads=2, decode_workers=workers)
    batches = list(annotated_batches(source, data, runtime, Share(4), crops=5))
    told = [row for b in batches for row in zip(b["name"], b["problem"], b["mask"], strict=True)]
    assert [(name, problem) for name, problem, there in told if not there] == [
        *[("gray-3.png", "is truncated"), ("gray-5.png", "is truncated")],
        *[("", "")] * 2,
    ]
    assert all(problem == "" for _, problem, there in told if there)
    assert not any(b["image"][~b["mask"]].any() for b in batches)
    all_cut_off = dataclasses.replace(data, cut_bottom=8)
    batch = next(annotated_batches(source, all_cut_off, runtime, Share(4), crops=5))
    assert "pixels high, of which 8 are to be cut off" in batch["problem"][0]


@pytest.mark.parametrize(
    ("corrupt", "cut_bottom", "way_out"),
    [
        (frozenset({0}), 0, "replace the file and prepare the data set again"),
        (frozenset(), 8, "prepare the data set again with the fields of this run"),
    ],
)
def test_what_stops_the_training_has_its_own_way_out(
    corrupt: frozenset[int], cut_bottom: int, way_out: str
) -> None:
    """What preparation accepted with other fields is no fault of the file."""
    data = dataclasses.replace(SMALL, cut_bottom=cut_bottom)
    with pytest.raises(UserError, match=rf"gray-0\.png .*; {way_out}, or leave such images out"):
        next(evaluation_batches(GrayImages(4, corrupt=corrupt), data, THREADS, Share(4)))


def test_an_image_that_is_too_long_for_its_short_side_is_named() -> None:
    class Long(GrayImages):
        def __getitem__(self, index: SupportsIndex) -> Example:
            i = int(index)
            pixels = np.zeros((2, 60 if i == 1 else 4), np.uint8)
            return Example(cv2.imencode(".png", pixels)[1].tobytes(), i, f"{i}.png")

    data = dataclasses.replace(SMALL, resize_method="crop", max_pixels=4 * 8 * 200)
    words = r"1\.png has 60 × 2 pixels, which .*=crop makes 240 × 8, .*=6400; prepare the data set"
    with pytest.raises(UserError, match=words):
        list(evaluation_batches(Long(4), data, THREADS, ALONE))
    data.corrupt_images = "skip"
    (batch,) = annotated_batches(Long(4), data, THREADS, ALONE, crops=5)
    assert batch["mask"].tolist() == [True, False, True, True]
    assert "resize_method=crop" in batch["problem"][1]


@dataclasses.dataclass
class Birds(GrayImages):
    """One image of 120×90 pixels, with a bright spot where its one visible part is."""

    part_count: int = 2
    x: int = 60
    y: int = 40

    def __getitem__(self, index: SupportsIndex) -> Example:
        pixels = np.zeros((90, 120), np.uint8)
        pixels[self.y - 3 : self.y + 4, self.x - 3 : self.x + 4] = 255
        parts = (float(self.x), float(self.y), 1.0, 0.0, 0.0, 0.0)
        return Example(cv2.imencode(".png", pixels)[1].tobytes(), 0, "bird.png", parts)


@pytest.mark.parametrize("method", ["squash", "crop", "pad"])
@pytest.mark.parametrize("resize", [60, 100, 256])
def test_parts_are_where_the_image_shows_them(resize: int, method: str) -> None:
    data = Data(
        name="birds", resize=resize, crop=resize * 7 // 8, cut_bottom=6, resize_method=method
    )
    for x, y in [(60, 40), (35, 60), (84, 17)]:
        batch: AnnotatedBatch
        (batch,) = annotated_batches(
            Birds(1, x=x, y=y), data, THREADS, Share(1), crops=5, padding=(0, 0, 0)
        )
        bright = batch["image"][0, -1, :, :, 0].astype(float)
        rows, columns = np.mgrid[: data.crop, : data.crop]
        center = [float((axis * bright).sum() / bright.sum()) for axis in (columns, rows)]
        np.testing.assert_allclose(batch["parts"][0, 0, :2], center, atol=0.1)
        assert batch["parts"][0, :, 2].tolist() == [1, 0]


def test_parts_that_the_crop_of_a_long_image_leaves_out_are_not_visible() -> None:
    data = Data(name="birds", resize=45, crop=36, resize_method="crop")  # shows 24..96, 8..80
    places = {(24, 40): 1, (23, 40): 0, (95, 40): 1, (96, 40): 0, (60, 8): 1, (60, 7): 0}
    for (x, y), seen in places.items():
        (batch,) = annotated_batches(Birds(1, x=x, y=y), data, THREADS, Share(1), crops=1)
        assert batch["parts"][0, 0, 2] == seen


def test_parts_beside_the_crop_are_not_visible() -> None:
    data = Data(name="birds", resize=96, crop=48)  # of 120×90 the crop shows 30..90, 22.5..67.5
    seen: dict[tuple[int, int], bool] = {}
    for x, y in [(30, 40), (29, 40), (89, 40), (90, 40), (60, 23), (60, 21), (60, 66), (60, 68)]:
        batch: AnnotatedBatch
        (batch,) = annotated_batches(Birds(1, x=x, y=y), data, THREADS, Share(1), crops=1)
        seen[x, y] = bool(batch["parts"][0, 0, 2])
    assert [place for place, there in seen.items() if not there] == [
        *[(29, 40), (90, 40), (60, 21), (60, 68)]
    ]


def test_the_parts_of_cub_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = official_layouts.write_cub(tmp_path)
    monkeypatch.setattr(Cub, "CLASSES", len(written.class_names))
    splits = [record.split for record in written.records]
    monkeypatch.setattr(Cub, "COUNTS", {split: splits.count(split) for split in set(splits)})
    prepare(Cub, written.archives, tmp_path / "tfds", QUIET)
    _, test = open_splits(Data(name="cub", data_dir=str(tmp_path / "tfds")), QUIET)
    expected = {record.name: record.extra["parts"] for record in written.records}
    assert test.part_count == 15
    for index in range(len(test)):
        found = np.reshape(test[index].part_locations, (15, 3))
        np.testing.assert_array_equal(found, np.float32(expected[test[index].name]))


def test_where_nothing_is_annotated_there_are_no_parts(photographs: ExampleSource) -> None:
    assert photographs.part_count == 0
    assert photographs[0].part_locations == ()


def test_folds_are_the_test_images_in_turn(data_dir: Path) -> None:
    data = Data(name="synthetic/tiny", data_dir=str(data_dir))
    whole, _ = open_splits(data, QUIET)
    names = [whole[index].name for index in range(len(whole))]
    folds = []
    for number in (1, 2, 3):
        data.fold = f"{number}/3"
        train, test = open_splits(data, QUIET)
        held_out = [test[index] for index in range(len(test))]
        kept = [train[index].name for index in range(len(train))]
        assert sorted([*kept, *(each.name for each in held_out)]) == sorted(names)
        assert {each.label for each in held_out} == set(range(len(whole.class_names)))
        assert train.identity.split == f"train, without fold {number}/3"
        assert test.identity.split == f"train, fold {number}/3"
        folds += [each.name for each in held_out]
    assert sorted(folds) == sorted(names)
    assert folds != names  # of each class some, though the images are in the order of the classes


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "1", "1/5/2", "-1/5", "½", "1/99999999"])
def test_what_is_no_fold_is_refused(fold: str) -> None:
    config = Config()
    config.data.name, config.data.fold = "cub", fold
    with pytest.raises(UserError, match=r"--config\.data\.fold=.*must be empty or I/N"):
        validate(config)


def test_open_splits_names_what_is_wrong(data_dir: object) -> None:
    here: Any = {"data_dir": str(data_dir)}
    with pytest.raises(UserError, match=r"data set 'cub' is not prepared in"):
        open_splits(Data(name="cub", **here), QUIET)
    with pytest.raises(UserError, match=r"has no split 'val' \(it has: train, test\)"):
        open_splits(Data(name="synthetic/tiny", test_split="val", **here), QUIET)
    with pytest.raises(UserError, match=r"has no split 'test\[:0\]'"):
        open_splits(Data(name="synthetic/tiny", test_split="test[:0]", **here), QUIET)
    for variant in ("huge", "ti ny"):
        with pytest.raises(UserError, match=r"variants of synthetic are photographs, tiny"):
            open_splits(Data(name=f"synthetic/{variant}", **here), QUIET)
    with pytest.raises(UserError, match=r"data.name='c ub': is not the name of a tfds data set"):
        open_splits(Data(name="c ub", **here), QUIET)


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
        """Images with a number that is no class."""

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

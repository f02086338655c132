"""The paper's data sets: from an archive in the official layout to a training step and an evaluation."""

import io
import json
import random
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import official_layouts as layouts
import pytest
import tensorflow_datasets as tfds
from official_layouts import Written
from tiny_run import QUIET

from fgr_jax.config import Config, Data, Runtime
from fgr_jax.data.pipeline import Share, evaluation_batches
from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.preparation import prepare
from fgr_jax.data.sets import catalog
from fgr_jax.data.sets.aircraft import Aircraft
from fgr_jax.data.sets.cars import Cars
from fgr_jax.data.sets.cub import Cub
from fgr_jax.data.sets.dogs import Dogs
from fgr_jax.data.sets.gtos_mobile import GtosMobile
from fgr_jax.data.sets.imagenet import Imagenet
from fgr_jax.data.source import open_splits
from fgr_jax.errors import UserError
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

ROOT = Path(__file__).parent.parent.parent

OFFICIAL: dict[str, tuple[type[ImageBuilder], Callable[..., Written]]] = {
    "cub": (Cub, layouts.write_cub),
    "cars, devkit": (Cars, layouts.write_cars_devkit),
    "cars, one file": (Cars, layouts.write_cars_single_file),
    "aircraft": (Aircraft, layouts.write_aircraft),
    "dogs": (Dogs, layouts.write_dogs),
    "gtos_mobile": (GtosMobile, layouts.write_gtos_mobile),
    "imagenet": (Imagenet, layouts.write_imagenet),
}


def set_counts(
    monkeypatch: pytest.MonkeyPatch, builder: type[ImageBuilder], written: Written
) -> None:
    """Makes the counts of a small archive the official ones."""
    monkeypatch.setattr(builder, "CLASSES", len(written.class_names))
    splits = [record.split for record in written.records]
    counts = {split: splits.count(split) for split in ("train", "test")}
    monkeypatch.setattr(builder, "COUNTS", counts)


@pytest.fixture(params=OFFICIAL)
def official(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[type[ImageBuilder], Written]:
    builder, write = OFFICIAL[request.param]
    (tmp_path / "archives").mkdir()
    written = write(tmp_path / "archives")
    set_counts(monkeypatch, builder, written)
    return builder, written


def test_archive_to_training_and_evaluation(
    official: tuple[type[ImageBuilder], Written], small: Config, tmp_path: Path
) -> None:
    builder, written = official
    data_dir = tmp_path / "tfds"
    prepare(builder, written.archives, data_dir, QUIET, verify=True)
    assert not list(data_dir.glob(".unpacked*"))
    small.data.name, small.data.data_dir = builder.name, str(data_dir)
    small.duration = small.evaluate_every = "2 steps"
    sources = open_splits(small.data, QUIET)
    for split, source in zip(("train", "test"), sources, strict=True):
        assert source.class_names == written.class_names
        expected = [record for record in written.records if record.split == split]
        found = [source[index] for index in range(len(source))]
        by_name = sorted((example.name, example.label) for example in found)
        assert by_name == sorted((record.name, record.label) for record in expected)
        contents = {record.name: record.encoded for record in expected}
        assert all(contents[example.name] == example.encoded_image for example in found)
        assert all(written.class_names[record.label] == record.class_name for record in expected)
    outcome = train(small, Workdir.open(tmp_path / "run"), QUIET)
    assert outcome.step == 2
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["split"], last["examples"]) == ("test", len(sources[1]))


@pytest.mark.parametrize(
    "official", [name for name in OFFICIAL if name != "imagenet"], indirect=True
)
def test_an_extracted_folder_and_a_folder_of_archives_are_as_good(
    official: tuple[type[ImageBuilder], Written], tmp_path: Path
) -> None:
    builder, written = official
    extracted = tmp_path / "extracted"
    extracted.mkdir()
    for archive in written.archives:
        if ".mat" in archive.name:
            shutil.copy(archive, extracted)
        else:
            shutil.unpack_archive(archive, extracted)
    prepare(builder, [extracted], tmp_path / "one", QUIET)
    folder_of_archives = written.archives[0].parent
    known = {archive.file_name for archive in builder.ARCHIVES}
    named = [path for path in written.archives if path.name in known]
    same_names = len(named) == len(written.archives)
    sources = [folder_of_archives] if same_names else written.archives
    prepare(builder, sources, tmp_path / "two", QUIET)
    one, two = (
        open_splits(Data(name=builder.name, data_dir=str(tmp_path / folder)), QUIET)
        for folder in ("one", "two")
    )
    for ours, theirs in zip(one, two, strict=True):
        assert [ours[i] for i in range(len(ours))] == [theirs[i] for i in range(len(theirs))]


def test_imagenet_as_folders_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = layouts.write_imagenet(tmp_path)
    set_counts(monkeypatch, Imagenet, written)
    numbers = sorted(
        {record.name.partition("/")[0] for record in written.records if record.split == "train"}
    )
    folder = tmp_path / "folders"
    for record in written.records:
        split = "train" if record.split == "train" else "val"
        path = folder / split / numbers[record.label] / record.name.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.encoded)
    prepare(Imagenet, [folder], tmp_path / "tfds", QUIET)
    _, test = open_splits(Data(name="imagenet", data_dir=str(tmp_path / "tfds")), QUIET)
    assert test.class_names == numbers  # no devkit, no words
    labels = {record.name: record.label for record in written.records if record.split == "test"}
    assert {test[i].name.rpartition("/")[2]: test[i].label for i in range(len(test))} == labels


def test_imagenet_with_half_a_devkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = layouts.write_imagenet(tmp_path)
    set_counts(monkeypatch, Imagenet, written)
    *images, devkit = written.archives
    half = rewritten(devkit, lambda name, data: None if name.endswith("meta.mat") else data)
    with pytest.raises(
        UserError, match=r"holds no meta.mat\. https://www.image-net.org/: register"
    ):
        prepare(Imagenet, [*images, half], tmp_path / "tfds", QUIET)
    assert_nothing_was_prepared(tmp_path / "tfds")


def test_cub_keeps_boxes_and_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = layouts.write_cub(tmp_path)
    set_counts(monkeypatch, Cub, written)
    prepare(Cub, written.archives, tmp_path / "tfds", QUIET)
    builder = tfds.builder_from_directory(str(tmp_path / "tfds" / "cub" / "1.0.0"))
    expected = {record.name: record.extra for record in written.records}
    for split in ("train", "test"):
        for example in builder.as_data_source(
            split=split, decoders={"image": tfds.decode.SkipDecoding()}
        ):
            extra = expected.pop(example["file_name"].decode())
            np.testing.assert_array_equal(
                example["bounding_box"], np.float32(extra["bounding_box"])
            )
            np.testing.assert_array_equal(example["part_locations"], np.float32(extra["parts"]))
    assert not expected


def test_the_banner_of_aircraft_is_cut_off_on_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The banner is white, and the rest of these images is dark."""
    written = layouts.write_aircraft(tmp_path)
    set_counts(monkeypatch, Aircraft, written)
    prepare(Aircraft, written.archives, tmp_path / "tfds", QUIET)
    data = Data(name="aircraft", data_dir=str(tmp_path / "tfds"), resize=48, crop=48)
    brightest = {}
    for rows in (
        0,
        runpy.run_path(str(ROOT / "configs/aircraft.py"))["get_config"]().data.cut_bottom,
    ):
        data.cut_bottom = rows
        _, test = open_splits(data, QUIET)
        (batch,) = evaluation_batches(test, data, Runtime(), Share(len(test)))
        brightest[rows] = batch["image"].max()
    assert brightest[0] > 240
    assert brightest[20] < 180


def command(name: str, data_dir: Path, *arguments: str) -> list[str]:
    config = [f"--config=configs/{name}.py", f"--config.data.data_dir={data_dir}"]
    return [sys.executable, "-m", "fgr_jax.prepare", *config, *arguments]


def run(name: str, data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(name, data_dir, *arguments), cwd=ROOT, capture_output=True, text=True
    )


def assert_nothing_was_prepared(data_dir: Path) -> None:
    left = [path for path in data_dir.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not left


def test_official_counts_are_those_of_the_paper() -> None:
    """Table 1 of the paper."""
    table = {
        "cub": (200, 5994, 5794),
        "cars": (196, 8144, 8041),
        "aircraft": (100, 6667, 3333),
        "dogs": (120, 12000, 8580),
        "gtos_mobile": (31, 31315, 6066),
        "imagenet": (1000, 1281167, 50000),
    }
    for builder in catalog.ARCHIVED:
        counts = builder.COUNTS or {}
        assert (builder.CLASSES, counts["train"], counts["test"]) == table.pop(builder.name)
    assert not table


@pytest.mark.parametrize("name", ["cub", "dogs"])
def test_other_counts_are_refused_with_both_numbers(tmp_path: Path, name: str) -> None:
    builder, write = OFFICIAL[name]
    written = write(tmp_path)
    sources = [f"--source={path}" for path in written.archives]
    done = run(name, tmp_path / "tfds", *sources)
    assert done.returncode == 1
    counts = builder.COUNTS or {}
    train = sum(record.split == "train" for record in written.records)
    assert f"train: {train} images instead of {counts['train']:,}" in done.stderr
    assert f"{len(written.class_names)} classes instead of {builder.CLASSES}" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_was_prepared(tmp_path / "tfds")


def test_main_offers_the_command_and_the_command_says_what_to_get(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *[sys.executable, "-m", "fgr_jax.main", "--config=configs/cars.py", "--workdir=x"],
            f"--config.data.data_dir={tmp_path}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    offered = (
        f"python -m fgr_jax.prepare --config=configs/cars.py --config.data.data_dir={tmp_path}"
    )
    assert done.returncode == 1
    assert f"data set 'cars' is not prepared in {tmp_path}: run {offered}\n" in done.stderr
    done = run("cars", tmp_path)
    assert done.returncode == 1
    assert "cannot be downloaded automatically" in done.stderr
    assert "cars_test_annos_withlabels.mat" in done.stderr
    assert "Traceback" not in done.stderr
    assert_nothing_was_prepared(tmp_path)


def rewritten(archive: Path, change: Callable[[str, bytes], bytes | None]) -> Path:
    """`archive` with members changed, or left out where `change` gives None."""
    target = archive.parent / "changed" / archive.name
    target.parent.mkdir(exist_ok=True)
    with tarfile.open(archive) as opened, tarfile.open(target, "w:gz") as result:
        for member in opened:
            file = opened.extractfile(member) if member.isfile() else None
            data = change(member.name, file.read()) if file else b""
            if data is None:
                continue
            member.size = len(data)
            result.addfile(member, io.BytesIO(data) if file else None)
    return target


BAD_CUB: dict[str, tuple[Callable[[str, bytes], bytes | None], tuple[str, ...]]] = {
    "annotations missing": (
        lambda name, data: None if name.endswith("train_test_split.txt") else data,
        ("CUB_200_2011/train_test_split.txt does not exist: the archive is incomplete",),
    ),
    "no annotations at all": (
        lambda name, data: None if name.endswith(".txt") else data,
        ("CUB_200_2011.tgz: holds no image_class_labels.txt", "vision.caltech.edu"),
    ),
    "label out of range": (
        lambda name, data: (
            data.replace(b"\n2 ", b"\n2 7", 1) if name.endswith("class_labels.txt") else data
        ),
        ("image_class_labels.txt, line ", ", image 2: the label 7", "is not in the range 1 to"),
    ),
    "an image without label": (
        lambda name, data: data.split(b"\n", 1)[1] if name.endswith("class_labels.txt") else data,
        ("image_class_labels.txt has no entry for image 1,",),
    ),
    "half a line": (
        lambda name, data: data[:-8] if name.endswith("bounding_boxes.txt") else data,
        ("bounding_boxes.txt, line", "has fewer than 5 fields"),
    ),
}


@pytest.mark.parametrize("fault", BAD_CUB)
def test_bad_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    written = layouts.write_cub(tmp_path)
    set_counts(monkeypatch, Cub, written)
    change, words = BAD_CUB[fault]
    archive = rewritten(written.archives[0], change)
    with pytest.raises(UserError) as caught:
        prepare(Cub, [archive], tmp_path / "tfds", QUIET)
    for word in words:
        assert word in str(caught.value)
    assert ".unpacked" not in str(caught.value)
    assert_nothing_was_prepared(tmp_path / "tfds")


def test_every_missing_and_every_broken_image_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = layouts.write_cub(tmp_path)
    set_counts(monkeypatch, Cub, written)
    names = [record.name for record in written.records]

    def lose(name: str, data: bytes) -> bytes | None:
        return None if name.endswith((names[1], names[-2])) else data

    with pytest.raises(UserError) as caught:
        prepare(Cub, [rewritten(written.archives[0], lose)], tmp_path / "tfds", QUIET)
    for name in (names[1], names[-2]):
        assert f"{name} is in the list but not in the folder" in str(caught.value)
    assert "2 problems" in str(caught.value)

    def damage(name: str, data: bytes) -> bytes | None:
        if name.endswith(names[0]):
            return data[:-200]
        return b"GIF? no" if name.endswith(names[-1]) else data

    with pytest.raises(UserError) as caught:
        prepare(Cub, [rewritten(written.archives[0], damage)], tmp_path / "tfds", QUIET)
    assert f"{names[0]} is truncated" in str(caught.value)
    assert f"{names[-1]} is not an image" in str(caught.value)
    assert_nothing_was_prepared(tmp_path / "tfds")


def test_verify_finds_what_only_decoding_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = layouts.write_cub(tmp_path)
    set_counts(monkeypatch, Cub, written)
    # A JPEG whose pixels end early, although an end marker follows.
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    hollow = jpeg[: len(jpeg) * 2 // 3] + jpeg[-2:]
    name = written.records[0].name
    archive = rewritten(
        written.archives[0], lambda path, data: hollow if path.endswith(name) else data
    )
    with pytest.raises(UserError, match=rf"{name} is damaged \(Corrupt JPEG data: premature end"):
        prepare(Cub, [archive], tmp_path / "tfds", QUIET, verify=True)
    prepare(Cub, [archive], tmp_path / "tfds", QUIET)


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders that take long enough to prepare to be killed at it."""
    folder = tmp_path_factory.mktemp("large")
    written = layouts.write_cub(tmp_path_factory.mktemp("cub"))
    for split, count in (("train", 4000), ("test", 1000)):
        for index in range(count):
            record = written.records[index % len(written.records)]
            path = folder / split / record.class_name / f"{index:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(record.encoded + split.encode() + index.to_bytes(4, "big"))
    return folder


def test_killed_at_any_moment_leaves_all_or_nothing(large_folder: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "tfds"
    arguments = command("folder", data_dir, f"--config.data.folder={large_folder}")
    rng = random.Random(0)
    unfinished = 0
    for number in range(6):
        if number % 2 == 0:  # else it finds what the kill before has left
            shutil.rmtree(data_dir, ignore_errors=True)
        left = set(data_dir.glob("folder/*/*ncomplete*"))
        process = subprocess.Popen(
            arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not set(data_dir.glob("folder/*/*ncomplete*")) - left:
            time.sleep(0.005)  # seconds pass before it writes
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        found = list(data_dir.glob("folder/*/1.0.0/dataset_info.json"))
        if found:
            assert_whole(large_folder, data_dir)
        unfinished += bool(list(data_dir.rglob("*ncomplete*")))
        if number % 2 == 1:
            subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
            assert_whole(large_folder, data_dir)
            assert not list(data_dir.rglob("*ncomplete*"))
    assert unfinished, "no kill came while it was writing"


def assert_whole(folder: Path, data_dir: Path) -> None:
    data = Data(name="folder", folder=str(folder), data_dir=str(data_dir))
    train, test = open_splits(data, QUIET)
    assert (len(train), len(test)) == (4000, 1000)
    assert train[3999].encoded_image == (folder / "train" / train[3999].name).read_bytes()


def test_two_processes_prepare_the_same_data_set(large_folder: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "tfds"
    arguments = command("folder", data_dir, f"--config.data.folder={large_folder}")
    processes = [
        subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert any(b"waiting for another process" in out for out, _ in outputs)
    assert_whole(large_folder, data_dir)


FULL_DISK = """
mount -t tmpfs -o size={size}k none {disk}
status=0
{command} > {log} 2>&1 || status=$?
find {disk} -type f > {left}
umount {disk}
exit $status
"""
# The disk fills up after it was asked how much room there is.
NOT_FORESEEN = """
import shutil, types
shutil.disk_usage = lambda path: types.SimpleNamespace(free=1 << 60)
from fgr_jax import cli, prepare
cli.run(prepare.main)
"""


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_full_disk_leaves_nothing(large_folder: Path, tmp_path: Path, foreseen: bool) -> None:
    size = sum(path.stat().st_size for path in large_folder.rglob("*.jpg"))
    disk = tmp_path / "disk"
    disk.mkdir()
    words = command("folder", disk, f"--config.data.folder={large_folder}")
    if not foreseen:
        words[1:3] = ["-c", NOT_FORESEEN]
    script = FULL_DISK.format(
        size=size // 2 // 1024,
        disk=disk,
        log=tmp_path / "log",
        left=tmp_path / "left",
        command=shlex.join(words),
    )
    subprocess.run(["unshare", "--version"], check=True)  # this test needs util-linux
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "bash", "-c", script], cwd=ROOT, check=False
    )
    log = (tmp_path / "log").read_text()
    assert done.returncode == 1, log
    assert (
        log == f"error: No space left on device: {disk}; make room and run the same command again\n"
    )
    assert (tmp_path / "left").read_text().split() == [str(disk / ".folder.lock")]

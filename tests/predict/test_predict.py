"""Unlabeled images: predictions, heat maps, and files that are no images."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from networks import random_variables
from tiny_run import QUIET, ROOT, small_config

from fgr_jax.config import Config, Data, Network
from fgr_jax.data import images
from fgr_jax.distributed import data_mesh, replicated
from fgr_jax.diversification import class_scores
from fgr_jax.errors import UserError
from fgr_jax.inference.heatmaps import at_pixels, overlay
from fgr_jax.inference.saved_run import TrainedNetwork, open_run, restore
from fgr_jax.models.network import build_network, forward
from fgr_jax.predict import __main__ as command
from fgr_jax.predict.files import ImageFile, find, read, stream
from fgr_jax.predict.predictions import Prediction, Predictor
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train


@pytest.fixture(scope="module")
def workdir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, in a folder whose path is a pattern and has a line break."""
    config = small_config(data_dir)
    config.duration = "1 epoch"
    folder = tmp_path_factory.mktemp("predict") / "Projects [2024]" / "run*\n"
    train(config, Workdir.open(folder), QUIET)
    return folder


@pytest.fixture(scope="module")
def trained(workdir: Path) -> TrainedNetwork:
    return restore(open_run(Workdir.open(workdir)), None, data_mesh(jax.devices()[:1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images of several shapes in two folders, and three files that are none."""
    root = tmp_path_factory.mktemp("images")
    (root / "more").mkdir()
    rng = np.random.default_rng(0)
    for index in range(11):
        shape = (int(rng.integers(20, 60)), int(rng.integers(20, 60)), 3)
        pixels = cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), shape[1::-1])
        name = f"more/{index:02}.png" if index % 3 == 0 else f"{index:02}.jpg"
        assert cv2.imwrite(str(root / name), pixels)
    whole = (root / "01.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "text.png").write_text("no image")
    (root / "notes.txt").write_text("not meant to be an image")
    return root


def predict(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fgr_jax.predict", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"},
    )


def predict_here(*arguments: object) -> int:
    return command.main(["predict", *map(str, arguments)])


def predictions_for(
    folder: Path, trained: TrainedNetwork, *, batch_size: int, devices: int = 1
) -> list[Prediction]:
    mesh = data_mesh(jax.devices()[:devices])
    trained = dataclasses.replace(
        trained, variables=jax.device_put(trained.variables, replicated(mesh))
    )
    predictor = Predictor(trained, mesh, crop=32, batch_size=batch_size, top=3, with_maps=True)
    files = stream(find([str(folder)]).files, Data(resize=36, crop=32), threads=2, ahead=5)
    return list(predictor.predict(files))


def test_predictions_are_the_networks_own(folder: Path, trained: TrainedNetwork) -> None:
    apply = jax.jit(lambda images: forward(trained.network, trained.variables, images).maps)
    for prediction in predictions_for(folder, trained, batch_size=4):
        if prediction.image.problem:
            assert prediction.image.path.name in ("cut.jpg", "text.png")
            assert prediction.maps is None
            continue
        decoded = images.decode(prediction.image.path.read_bytes())
        crop = images.crop(images.resize(decoded, 36, 36), 2, 2, 32)
        maps: Any = apply(crop[None])
        expected = jax.nn.softmax(class_scores(maps))[0]
        assert prediction.maps is not None
        order = np.argsort(-np.asarray(expected))[:3]
        assert prediction.classes == order.tolist()
        np.testing.assert_allclose(prediction.probabilities, expected[order], rtol=1e-5)
        np.testing.assert_allclose(
            prediction.maps,
            np.moveaxis(np.asarray(maps)[0][..., order], -1, 0),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize(("batch_size", "devices"), [(1, 1), (9, 1), (16, 8)])
def test_batches_and_devices_change_nothing(
    folder: Path, trained: TrainedNetwork, batch_size: int, devices: int
) -> None:
    ours = predictions_for(folder, trained, batch_size=batch_size, devices=devices)
    theirs = predictions_for(folder, trained, batch_size=4)
    assert [prediction.image.path for prediction in ours] == find([str(folder)]).files
    for one, other in zip(ours, theirs, strict=True):
        assert one.classes == other.classes
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-5)


def test_files_and_folders_are_found(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = find([str(folder), str(folder / "notes.txt")]).files
    assert len(found) == 14
    assert found[-1] == folder / "notes.txt"  # named, so taken
    assert found[:-1] == sorted(found[:-1])
    with pytest.raises(UserError, match=r"empty: holds no image"):
        find([str(tmp_path / "empty")])
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        find([str(tmp_path / "nowhere")])


def test_no_more_is_decoded_ahead_than_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []

    def counted(path: Path, **how: Any) -> ImageFile:
        decoded.append(path)
        return read(path, **how)

    monkeypatch.setattr("fgr_jax.predict.files.read", counted)
    paths = find([str(folder)]).files
    files = stream(paths, Data(resize=36, crop=32), threads=3, ahead=4)
    for taken, _ in enumerate(files, start=1):
        assert len(decoded) <= taken + 4
    assert decoded
    assert sorted(decoded) == sorted(paths)


def test_the_command_prints_writes_and_names_what_it_cannot_read(
    workdir: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = predict(f"--workdir={workdir}", folder, "--top=2")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len(lines) == 11
    assert lines[0].startswith(f"{folder}/01.jpg: ")
    assert lines[0].count("%") == 2
    assert f"not images, as their first bytes show: {folder}/notes.txt\n" in done.stderr
    assert f"{folder}/cut.jpg is truncated" in done.stderr
    assert f"{folder}/text.png is not an image" in done.stderr
    assert "error: 2 of 13 files could not be read" in done.stderr

    for name in ("predictions.csv", "predictions.json"):
        with pytest.raises(UserError, match="2 of 14 files could not be read"):
            predict_here(
                f"--workdir={workdir}",
                folder,
                folder / "01.jpg",
                "--top=2",
                f"--output={tmp_path / name}",
                f"--heatmaps={tmp_path / 'heat'}",
            )
        assert "12 images" in capsys.readouterr().out
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    records = json.loads((tmp_path / "predictions.json").read_text())
    assert len(rows) == len(records) == 14
    for row, record in zip(rows, records, strict=True):
        assert row["file"] == record["file"]
        assert row["problem"] == record.get("problem", "")
        for place, prediction in enumerate(record.get("predictions", []), start=1):
            assert row[f"class_{place}"] == prediction["class"]
            assert float(row[f"probability_{place}"]) == prediction["probability"]
    overlays = sorted(
        path.relative_to(tmp_path / "heat") for path in tmp_path.glob("heat/**/*.jpg")
    )
    assert len(overlays) == 22
    assert str(overlays[-1]).startswith("more/09.png.2-")
    for path in overlays:
        source = folder / str(path).split(".jpg.")[0].split(".png.")[0]
        original = next(source.parent.glob(f"{source.name}.*"))
        overlaid = cv2.imread(str(tmp_path / "heat" / path))
        assert overlaid is not None
        assert overlaid.shape == cv2.imread(str(original)).shape  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--output=predictions.txt",
            "^--output=predictions.txt: must end in .csv, .json or .jsonl",
        ),
        ("--output=nowhere/predictions.csv", "the folder nowhere does not exist"),
        ("--top=0", "--top"),
    ],
)
def test_bad_options_in_one_line(
    workdir: Path,
    folder: Path,
    option: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        predict_here(f"--workdir={workdir}", folder / "01.jpg", option)
    assert "\n" not in str(raised.value)
    assert capsys.readouterr() == ("", "")


def test_a_step_that_is_not_there_in_one_line(workdir: Path, folder: Path) -> None:
    """Although the name of the workdir has a line break."""
    done = predict(f"--workdir={workdir}", folder / "01.jpg", "--step=3")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "holds the checkpoints of the steps 7" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_half_a_file_is_not_left(workdir: Path, folder: Path, tmp_path: Path) -> None:
    """The folder for heat maps turns out to be a file."""
    (tmp_path / "heat").write_text("")
    done = predict(
        f"--workdir={workdir}",
        folder / "01.jpg",
        f"--output={tmp_path / 'predictions.csv'}",
        f"--heatmaps={tmp_path / 'heat'}",
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["heat"]


@pytest.fixture(scope="module")
def maps_of() -> Any:
    """Images of 224 pixels to maps, by a network with random weights."""
    config = Config()
    config.network = Network(depth=18, width=0.25, last_stride=1)
    network = build_network(config, 8)
    variables = random_variables(network, 224, 224)
    return jax.jit(lambda images: forward(network, variables, images).maps)


@pytest.mark.parametrize("method", ["squash", "crop", "pad"])
@pytest.mark.parametrize("shape", [(200, 320), (320, 200), (256, 256)])
@pytest.mark.parametrize("place", [(0.3, 0.35), (0.7, 0.3), (0.5, 0.5), (0.35, 0.7)])
def test_a_bright_square_lights_up_where_it_is(
    maps_of: Any, method: str, shape: tuple[int, int], place: tuple[float, float]
) -> None:
    """From the file's pixels to the overlay's, through the network: what a square changes."""
    height, width = shape
    y, x = round(place[0] * height), round(place[1] * width)
    dark = np.full((height, width, 3), 60, np.uint8)
    bright = dark.copy()
    bright[y - 8 : y + 8, x - 8 : x + 8] = 255
    data = Data(resize=256, crop=224, resize_method=method)
    crops = [
        images.crops_at(each, data, [images.CENTER], (124, 116, 104)) for each in (dark, bright)
    ]
    maps = np.asarray(maps_of(np.concatenate(crops)))
    heat = at_pixels(np.abs(maps[1] - maps[0]).sum(-1), 224, 16)
    canvas = images.Canvas.of(data, height, width)
    placed = canvas, canvas.offset(images.CENTER)
    resized = {
        "squash": (256, 256),
        "crop": (256 * height / min(shape), 256 * width / min(shape)),
        "pad": (256 * height / max(shape), 256 * width / max(shape)),
    }
    cell = np.asarray([height, width]) * 16 / resized[method]  # of the image's pixels
    # Over the image, and over a smaller version of it, as in the report.
    for factor in (1, 2):
        small = np.ascontiguousarray(dark[::factor, ::factor])
        overlaid = overlay(small, heat**4, *placed).astype(float)
        warmth = np.abs(overlaid - overlay(small, 0 * heat, *placed)).sum(-1)
        warmth[warmth < 0.5 * warmth.max()] = 0
        rows, columns = np.indices(warmth.shape) * factor
        center = (warmth * rows).sum() / warmth.sum(), (warmth * columns).sum() / warmth.sum()
        assert np.abs(np.subtract(center, (y, x)) / cell).max() < 1


@pytest.mark.long
def test_memory_does_not_grow_with_the_number_of_images(workdir: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(20):
        coarse = rng.integers(0, 256, (40, 50, 3), np.uint8)
        encoded.append(cv2.imencode(".jpg", cv2.resize(coarse, (1000, 800)))[1].tobytes())
    peaks = {}
    for count in (200, 2000):
        folder = tmp_path / str(count)
        folder.mkdir()
        for index in range(count):
            (folder / f"{index:04}.jpg").write_bytes(encoded[index % 20])
        command = ["-m", "fgr_jax.predict", f"--workdir={workdir}", f"--output={folder}.csv"]
        measured = subprocess.run(
            [sys.executable, "-c", PEAK_OF, sys.executable, *command, str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert len((tmp_path / f"{count}.csv").read_text().splitlines()) == count + 1
        peaks[count] = int(measured.stdout.split()[-1])
    assert peaks[200] > 100_000  # kilobytes
    assert peaks[2000] < 1.1 * peaks[200], peaks


# Runs a command and prints its peak memory, in kilobytes.
PEAK_OF = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""

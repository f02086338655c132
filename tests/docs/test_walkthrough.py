"""docs/walkthrough.md as a reader follows it, on generated images in the layout of its data set."""

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from documents import read
from served import an_image, ask, served
from small_backbone import SMALL_BACKBONE
from tiny_run import ROOT

DOCUMENT = ROOT / "docs" / "walkthrough.md"
KINDS = {"Golden-Delicious": "Fruit/Apple", "Granny-Smith": "Fruit/Apple", "Leek": "Vegetables"}
# A network that is compiled in a second, for two steps, instead of the one of the document.
QUICK = [
    f"--config.network.backbone={SMALL_BACKBONE}",
    "--config.pretrained=",
    "--config.data.resize=72",
    "--config.data.crop=64",
    "--config.duration=2 steps",
    "--config.evaluate_every=1 steps",
    "--config.batch_size=4",
]


def write_groceries(folder: Path) -> None:
    """The data set with 3 of its classes, of which the validation split lacks one, as it does there."""
    rng = np.random.default_rng(0)
    data = folder / "dataset"
    lists: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, (name, above) in enumerate(KINDS.items()):
        leaf = above if above.endswith(name) else f"{above}/{name}"
        for split, count in (("train", 5), ("val", 1 if label else 0), ("test", 3)):
            for index in range(count):
                path = f"{split}/{leaf}/{name}_{index:03}.jpg"
                (data / path).parent.mkdir(parents=True, exist_ok=True)
                pixels = np.clip(rng.normal(60 + 70 * label, 20, (90, 68, 3)), 0, 255)
                cv2.imwrite(str(data / path), pixels.astype(np.uint8))
                lists[split].append(f"{path}, {label}, {label // 2}\n")
    for split, lines in lists.items():
        (data / f"{split}.txt").write_text("".join(lines))
    header = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int)\n"
    rows = (f"{name},{label},X,{label // 2}\n" for label, name in enumerate(KINDS))
    (data / "classes.csv").write_text(header + "".join(rows))
    samples = folder / "sample_images" / "natural"
    samples.mkdir(parents=True)
    for index in range(3):
        (samples / f"{index}.jpg").write_bytes(an_image(index, 80, 60))


def commands() -> list[list[str]]:
    """The command lines of the document, without the installation."""
    lines = [
        line
        for block in read(DOCUMENT).blocks
        if block.language == ""
        for line in block.code.replace("\\\n", " ").splitlines()
    ]
    return [words for words in map(shlex.split, lines) if words[:2] == ["python", "-m"]]


def test_every_command_does_what_the_text_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_groceries(tmp_path / "GroceryStoreDataset")
    monkeypatch.chdir(tmp_path)
    (table,) = (block.code for block in read(DOCUMENT).blocks if block.language == "python")
    exec(table, {})
    with open("grocery.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == set(KINDS)
    assert sum(row["split"] == "val" for row in rows) == 2

    def run(words: list[str], *more: str) -> str:
        arguments = [word.replace("configs/", f"{ROOT}/configs/") for word in words[1:]]
        done = subprocess.run(
            [sys.executable, *arguments, *more],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    train, evaluate, predict, export, serve = commands()
    where = f"--config.data.data_dir={tmp_path / 'prepared'}"
    trained = run(train, *QUICK, where)
    assert "15 training and 2 validation and 9 test images, 3 classes" in trained
    workdir = tmp_path / "runs" / "grocery"
    assert (workdir / "report.html").is_file()
    assert (workdir / "label_issues.csv").read_text().startswith("file,label,prediction")
    assert "balanced accuracy" in run(evaluate)
    assert run(predict).count(".jpg: ") == 3
    exported = run(export)
    assert "verified: all predictions are those of the run on 9 images" in exported
    assert (workdir / "export" / "model.onnx").is_file()
    assert serve == ["python", "-m", "fgr_jax.serve", "--workdir=runs/grocery"]
    with served(workdir) as (_, address):
        answer = ask(address, an_image(0), "?nearest=1")
        assert {each["class"] for each in answer["predictions"]} == set(KINDS)
        assert all(each["nearest"] for each in answer["predictions"])

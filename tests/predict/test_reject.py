"""Images of none of the classes: measured by `evaluate`, and rejected by `predict`."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from colored_images import write_classes, write_image
from sklearn.metrics import roc_auc_score
from tiny_run import QUIET, small_config

from fgr_jax.errors import UserError
from fgr_jax.evaluate import __main__ as evaluate
from fgr_jax.predict import __main__ as predict
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, its images, and images of other colors; it has not been evaluated."""
    root = tmp_path_factory.mktemp("reject")
    colors = ("blue", "green", "red")
    write_classes(root / "images", "train", dict.fromkeys(colors, 16))
    write_classes(root / "images", "test", dict.fromkeys(colors, 10), seed=1)
    for index in range(20):
        color = ((130, 130, 130), (150, 120, 60))[index % 2]
        write_image(root / "foreign" / f"{index:02}.png", color, 90_000 + index)
    (root / "foreign" / "broken.png").write_bytes((root / "foreign/00.png").read_bytes()[:200])
    config = small_config(root / "tfds")
    config.data.name, config.data.folder = "folder", str(root / "images")
    config.duration, config.evaluate_every, config.checkpoint_every = ("12 epochs",) * 3
    config.diversification.alpha, config.loss.gce_start = 1.0, "never"
    config.runtime.devices = 1
    train(config, Workdir.open(root / "run"), QUIET)
    return root


def predicting(root: Path, paths: list[Path], output: Path) -> list[str]:
    """Returns the command line."""
    flags = ["--reject_below=0.2", f"--output={output}", f"--workdir={root}/run"]
    return ["predict", *map(str, paths), *flags]


def test_it_must_be_evaluated_first(root: Path) -> None:
    with pytest.raises(UserError, match="has not been evaluated at step 72, so the confidence"):
        predict.main(
            ["predict", str(root / "foreign"), f"--workdir={root}/run", "--reject_below=0.1"]
        )
    for folder in ("nowhere", "run/tensorboard"):
        with pytest.raises(UserError, match=r"no such folder|holds no image"):
            evaluate.main(["evaluate", f"--workdir={root}/run", f"--foreign={root}/{folder}"])


def test_foreign_images_are_measured_and_rejected(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main(["evaluate", f"--workdir={root}/run", f"--foreign={root}/foreign"]) == 0
    printed = capsys.readouterr().out
    folder = root / "run" / "evaluation" / "step-72-one"
    results = json.loads((folder / "results.json").read_text())
    foreign = results["foreign"]
    assert (foreign["images"], foreign["unreadable"]) == (20, 1)
    assert f"AUROC {foreign['auroc']:.3f}" in printed
    assert "1 foreign images could not be read" in printed
    # `predict` gives the same images the same places among the test images.
    tests = [root / "images" / "test" / color for color in ("blue", "green", "red")]
    assert predict.main(predicting(root, tests, root / "known.csv")) == 0
    with (root / "known.csv").open(newline="") as file:
        known = list(csv.DictReader(file))
    assert len(known) == 30
    rejected = [row for row in known if row["rejected"] == "true"]
    assert len(rejected) == pytest.approx(6, abs=1)  # batches of another size round otherwise
    assert all(float(row["percentile"]) < 0.2 for row in rejected)
    with pytest.raises(UserError, match="1 of 21 files could not be read"):
        predict.main(predicting(root, [root / "foreign"], root / "foreign.jsonl"))
    lines = (root / "foreign.jsonl").read_text().splitlines()
    others = [record for record in map(json.loads, lines) if "problem" not in record]
    assert len(others) == 20
    assert np.mean([record["rejected"] for record in others]) == pytest.approx(
        foreign["rejected"]["0.2"], abs=0.051
    )
    values = [float(row["percentile"]) for row in known], [each["percentile"] for each in others]
    expected = roc_auc_score([1] * 30 + [0] * 20, np.concatenate(values))
    print(f"AUROC {foreign['auroc']:.3f}, by percentiles {expected:.3f}")
    # Percentiles of images that are less confident than all test images are ties.
    assert foreign["auroc"] == pytest.approx(expected, abs=0.02)
    assert foreign["auroc"] > 0.9
    with (folder / "coverage.csv").open(newline="") as file:
        curve = list(csv.DictReader(file))
    assert (curve[0]["reject_below"], float(curve[0]["kept"])) == ("0.0", 1)
    assert float(curve[0]["accuracy"]) == results["center_crop"]["top1"]
    assert float(curve[20]["kept"]) == pytest.approx(0.8)


def test_what_is_printed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main(["evaluate", f"--workdir={root}/run"])
    capsys.readouterr()
    image, other = root / "images" / "test" / "red" / "000.png", root / "foreign" / "00.png"
    flags = [f"--workdir={root}/run", "--reject_below=1.0", "--top=1"]
    assert predict.main(["predict", str(other), *flags]) == 0
    assert f"{other}: none of the classes (" in capsys.readouterr().out
    assert predict.main(["predict", str(image), *flags[:1], "--reject_below=0", "--top=1"]) == 0
    assert f"{image}: red " in capsys.readouterr().out
    rejection = root / "run" / "evaluation" / "step-72-one" / "rejection.json"
    whole = rejection.read_text()
    rejection.write_text(whole[:100])
    with pytest.raises(UserError, match=r"rejection.json cannot be read \("):
        predict.main(["predict", str(image), *flags])
    rejection.write_text(whole)

"""Labels that look wrong in a report: of the test split, and of training images out of fold."""

import csv
from pathlib import Path

import pytest
from browser import opened
from colored_images import COLORS, write_classes, write_image
from tiny_run import QUIET, small_config

from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.report import __main__ as report
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

PLANTED = {  # an image of the first color in the folder of the second
    "train/red/plant0.png": ("blue", "red"),
    "train/red/plant1.png": ("green", "red"),
    "train/blue/plant2.png": ("green", "blue"),
    "train/green/plant3.png": ("red", "green"),
    "train/green/plant4.png": ("blue", "green"),
    "train/blue/plant5.png": ("red", "blue"),
    "test/red/plant6.png": ("blue", "red"),
    "test/blue/plant7.png": ("green", "blue"),
    "test/green/plant8.png": ("red", "green"),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on generated images, a tenth of which has wrong labels, and two folds."""
    root = tmp_path_factory.mktemp("labels")
    colors = ("blue", "green", "red")
    write_classes(root / "images", "train", dict.fromkeys(colors, 18))
    write_classes(root / "images", "test", dict.fromkeys(colors, 9), seed=1)
    for seed, (name, (color, _)) in enumerate(PLANTED.items()):
        write_image(root / "images" / name, COLORS[color], 50_000 + seed)
    for name, fold in (("run", ""), ("fold1", "1/2"), ("fold2", "2/2"), ("third", "1/3")):
        config = config_of(root)
        config.data.fold = fold
        if name == "third":
            config.duration = "1 steps"
        train(config, Workdir.open(root / name), QUIET)
    return root


def config_of(root: Path) -> Config:
    config = small_config(root / "tfds")
    config.data.name, config.data.folder = "folder", str(root / "images")
    config.duration, config.evaluate_every, config.checkpoint_every = ("12 epochs",) * 3
    config.loss.gce_start = "never"
    config.diversification.alpha = 1.0
    config.runtime.devices = 1
    return config


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_planted_labels_are_shown_and_listed(runs: Path) -> None:
    assert report.main(["report", f"--workdir={runs}/run", f"--folds={runs}/fold*"]) == 0
    rows = rows_of(runs / "run" / "label_issues.csv")
    found = {f"{row['split'].partition(',')[0]}/{row['file']}": row for row in rows}
    names = {name.removeprefix("train/").removeprefix("test/"): name for name in PLANTED}
    hits = [
        row for row in rows if row["file"].removeprefix("train/").removeprefix("test/") in names
    ]
    print(f"precision {len(hits)}/{len(rows)}, recall {len(hits)}/{len(PLANTED)}")
    assert len(hits) >= len(PLANTED) - 1
    assert len(hits) >= 0.8 * len(rows)
    assert len(found) == len(rows)
    for row in hits:
        name = names[row["file"].removeprefix("train/").removeprefix("test/")]
        color, label = PLANTED[name]
        assert (row["prediction"], row["label"]) == (color, label)
        assert float(row["probability_of_prediction"]) > float(row["probability_of_label"])
        assert row["split"].startswith(name.partition("/")[0])
    margins = [
        float(row["probability_of_prediction"]) - float(row["probability_of_label"]) for row in rows
    ]
    assert margins == sorted(margins, reverse=True)
    assert {row["split"] for row in rows} == {"test", "train, fold 1/2", "train, fold 2/2"}
    with opened(runs / "run" / "report.html", width=1280, height=900) as (shown, wrong):
        cards = shown.locator("#labels .card")
        assert cards.count() == min(len(rows), 12)
        first = cards.first.inner_text()
        assert rows[0]["file"] in first
        assert f"map of {rows[0]['label']}, the label" in first
        text = shown.locator("#labels").inner_text()
        assert "of 60 images (train, out of 2 folds)" in text
        assert "of 30 images (test)" in text
        assert wrong == []


def test_without_folds_the_test_split_alone_is_judged(runs: Path) -> None:
    assert report.main(["report", f"--workdir={runs}/fold1"]) == 0
    rows = rows_of(runs / "fold1" / "label_issues.csv")
    assert {row["split"] for row in rows} == {"train, fold 1/2"}
    page = (runs / "fold1" / "report.html").read_text()
    assert "Training images are judged by runs on folds" in page
    # A run that is one of the folds itself is not counted twice.
    assert report.main(["report", f"--workdir={runs}/fold1", f"--folds={runs}/fold*"]) == 0
    rows = rows_of(runs / "fold1" / "label_issues.csv")
    assert len({row["file"] for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folds={runs}/run"], "run: the run was trained on all training images, and cannot"),
        (["--folds={runs}/fold1,{runs}/fold1"], "holds out train, fold 1/2, as"),
        (["--folds={runs}/fold1,{runs}/third"], "third: holds out train, fold 1/3, and"),
        (["--folds={runs}/nothing*"], "no such folder"),
        (["--folds="], "names no run"),
        (["--folds={runs}/fold1", "--compare={runs}/fold1"], "give one of them"),
    ],
)
def test_what_cannot_judge(runs: Path, options: list[str], message: str) -> None:
    flags = [option.format(runs=runs) for option in options]
    with pytest.raises(UserError, match=message):
        report.main(["report", f"--workdir={runs}/run", *flags])

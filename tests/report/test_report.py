"""`python -m fgr_jax.report`: what it contains, by which rules, and the page in a browser."""

import base64
import dataclasses
import fcntl
import html
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from browser import opened
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import QUIET, ROOT, command, config_flags, small_config, tiny_config

from fgr_jax import main
from fgr_jax.config import Config, Data
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.evaluate import __main__ as evaluate
from fgr_jax.evaluate import measures
from fgr_jax.evaluate.evaluated_run import EvaluatedRun, evaluate_run, open_for_test
from fgr_jax.evaluate.evaluation import evaluate as measure
from fgr_jax.inference.saved_run import open_run
from fgr_jax.report import __main__ as report
from fgr_jax.report.contents import contents
from fgr_jax.report.page import as_html
from fgr_jax.report.run_images import RunImages
from fgr_jax.report.selection import confusable_group, most_confident, spread_over
from fgr_jax.report.tables import paper_accuracy
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

# What a browser would run, a formula, a leading underscore, scripts without Latin letters, two spaces.
CLASSES = ["<img src=x onerror=alert(1)>", "<script>alert(2)<", "$x_{$ & _y", "_日本楓  שלום"]
STEPS = 12  # 32 images in batches of 8, three epochs


def write_images(folder: Path, classes: Sequence[str], *, train: int, test: int) -> Path:
    """Noise, a little brighter in one class than in the next; not square."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for place, name in enumerate(classes):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 100, (44, 60, 3)) + 12 * (place % 12)
                path = folder / split / name / f"<b>{index}.png"
                path.write_bytes(cv2.imencode(".png", pixels.astype(np.uint8))[1].tobytes())
    return folder


def folder_config(folder: Path, data_dir: Path) -> Config:
    config = tiny_config(data_dir)
    config.data.name, config.data.folder = "folder", str(folder)
    return config


def train_two(root: Path, config: Config) -> None:
    """The run root/one, and root/other, which is what it was after step 8."""
    config.duration, config.checkpoint_every = "3 epochs", "1 epoch"
    train(config, Workdir.open(root / "one"), QUIET)
    shutil.copytree(root / "one", root / "other")
    shutil.rmtree(root / "other" / "checkpoints" / str(STEPS))
    starts = root / "other" / "provenance.jsonl"
    starts.write_text(starts.read_text().replace("random weights", "w.pth, license not known"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the workdirs of two runs, one and other; they are not to be changed."""
    root = tmp_path_factory.mktemp("runs")
    images = write_images(root / "images", CLASSES, train=8, test=5)
    train_two(root, folder_config(images, root / "tfds"))
    return root


def evaluated_run(workdir: Path) -> EvaluatedRun:
    mesh = data_mesh()
    made = evaluate_run(
        open_for_test(open_run(Workdir.open(workdir)), mesh, QUIET), mesh, QUIET, crops="one"
    )
    assert made is not None
    return made


@pytest.fixture(scope="module")
def evaluated(runs: Path) -> EvaluatedRun:
    return evaluated_run(runs / "one")


@pytest.fixture(scope="module")
def page(runs: Path) -> Path:
    """The page that compares the two."""
    assert report.main(["report", f"--workdir={runs}/one", f"--compare={runs}/other"]) == 0
    return runs / "one" / "comparison.html"


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_the_page_in_a_browser(page: Path, width: int, height: int, tmp_path: Path) -> None:
    with opened(page, width=width, height=height) as (shown, wrong):
        shown.screenshot(path=tmp_path / "page.png", full_page=True)
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        widths = shown.evaluate("[...document.images].map(each => each.naturalWidth)")
        assert len(widths) > 30
        assert min(widths) > 0
        # Names are text wherever they stand.
        names = shown.locator("#classtable tbody tr td:first-child").all_inner_texts()
        assert sorted(names) == sorted(CLASSES)
        assert shown.locator("script").count() == 1
        assert shown.locator("img[src='x']").count() == 0
        assert shown.get_by_text("<b>0.png").count() > 0
        # Where lines may break: in names of classes, and between the folders of files.
        assert "<bdi>$x_<wbr>{$ &amp; _<wbr>y</bdi>" in page.read_text()
        assert "$x_<wbr>{$ &amp; _<wbr>y/<wbr>" in page.read_text()
        assert wrong == []
    seen = cv2.imread(str(tmp_path / "page.png"))
    assert seen is not None
    assert seen.shape[1] == width
    blue, green, red = (seen[:, :, channel].astype(int) for channel in range(3))
    assert np.mean((red - blue > 80) & (green - blue > 20)) > 0.001  # the warm colors of the maps
    assert np.mean(seen.min(axis=2) > 250) > 0.3  # on white


def test_the_table_of_classes_is_sorted_and_searched(page: Path) -> None:
    with opened(page, width=1280, height=900) as (shown, wrong):

        def names() -> list[str]:
            return shown.locator("#classtable tbody tr:visible td:first-child").all_inner_texts()

        def numbers(column: int) -> list[float]:
            cells = shown.locator(f"#classtable tbody tr td:nth-child({column})")
            return [float(text.rstrip("%")) for text in cells.all_inner_texts()]

        for column, label in ((3, "accuracy, this run"), (4, "compared run")):
            button = shown.locator("#classtable thead").get_by_text(label)
            button.click()
            assert numbers(column) == sorted(numbers(column))
            assert shown.locator(f"th:nth-child({column})[aria-sort=ascending]").count() == 1
            button.click()
            assert numbers(column) == sorted(numbers(column), reverse=True)
            assert shown.locator("[aria-sort]").count() == 1
        shown.fill("#search", "<SCRIPT>")
        assert names() == [CLASSES[1]]
        assert shown.locator("#found").inner_text() == "1 of 4"
        shown.fill("#search", "nothing like it")
        assert names() == []
        shown.fill("#search", "")
        assert len(names()) == 4
        assert wrong == []


def text_of(page: Path) -> str:
    """What is written on it, in one line."""
    body = re.sub(r"<(script|style)>.*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def test_it_says_what_evaluate_says(runs: Path, page: Path) -> None:
    results = []
    for name, step in (("one", STEPS), ("other", 8)):
        assert evaluate.main(["evaluate", f"--workdir={runs}/{name}"]) == 0
        folder = runs / name / "evaluation" / f"step-{step}-one"
        results.append(json.loads((folder / "results.json").read_text()))
    text = text_of(page)
    for name, value in (
        ("accuracy, one crop (the center)", lambda result: f"{result['center_crop']['top1']:.1%}"),
        ("balanced accuracy", lambda result: f"{result['balanced_accuracy']:.1%}"),
        ("macro F1", lambda result: f"{result['macro_f1']:.1%}"),
        ("loss, cross-entropy", lambda result: f"{result['center_crop']['loss']:.3f}"),
        (
            "area that holds 80% of it",
            lambda result: f"{result['maps']['true_class']['area']:.1%}",
        ),
    ):
        assert f"{name} {value(results[0])} {value(results[1])}" in text, name
    assert f"step {STEPS} of {STEPS}" in text
    fingerprint = json.loads((runs / "one" / "fingerprints.jsonl").read_text().splitlines()[-1])
    assert f"parameters {fingerprint['parameters']} after step {STEPS}" in text
    assert "starting weights random weights w.pth, license not known" in text
    assert f"{runs}/other: this is the checkpoint of step 8 of {STEPS}, not of the last." in text
    assert f"{runs}/one: this is" not in text


def test_its_maps_are_those_of_the_network(evaluated: EvaluatedRun) -> None:
    images = RunImages(evaluated, data_mesh())
    indices = list(range(19))  # more than a batch
    classes = [(index % 4, (index + 1) % 4) for index in indices]
    maps, features = np.stack(images.maps(indices, classes)), images.features(indices)
    # Their mean is the score, which evaluating came to by itself.
    scores = evaluated.evaluation.predictions.scores
    expected = np.take_along_axis(scores[:19], np.asarray(classes), axis=1)
    np.testing.assert_allclose(maps.mean(axis=(2, 3)), expected, atol=1e-4)
    assert features.shape == (19, 8)  # 64 channels, an eighth as wide
    kernel, bias = (
        np.asarray(evaluated.trained.variables["params"]["classifier"][name], np.float64)
        for name in ("kernel", "bias")
    )
    np.testing.assert_allclose(
        features.astype(np.float64) @ kernel[0, 0] + bias, scores[:19], atol=1e-4
    )


def test_a_run_that_is_still_being_trained_has_a_page_that_says_so(
    runs: Path, tmp_path: Path
) -> None:
    workdir = Path(shutil.copytree(runs / "one", tmp_path / "run"))
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    page = workdir / "report.html"
    with (workdir / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert report.main(["report", f"--workdir={workdir}"]) == 0
        state = f"The run is still being trained: this is its checkpoint of step 8 of {STEPS}."
        assert state in text_of(page)
    config = json.loads((workdir / "config.json").read_text())
    del config["loss.gce_fade"]
    (workdir / "config.json").write_text(json.dumps(config))
    assert report.main(["report", f"--workdir={workdir}"]) == 0
    assert f"This is the checkpoint of step 8 of {STEPS}, not of the last." in text_of(page)
    assert "older config lacks loss.gce_fade, with their defaults here" in text_of(page)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workdir={runs}/none"], "no such folder"),
        (["--workdir={runs}/images"], "is no workdir of a run"),
        (
            ["--workdir={runs}/one", "--compare={runs}/none"],
            "--compare={runs}/none: no such folder",
        ),
        (["--workdir={runs}/one", "--step=5"], "holds the checkpoints of the steps"),
        (["--workdir={runs}/one", "--crops=seven"], "--crops"),
    ],
)
def test_bad_input(runs: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message.format(runs=runs))):
        report.main(["report", *(option.format(runs=runs) for option in options)])


def test_runs_on_other_images_are_not_compared(runs: Path, tmp_path: Path, data_dir: Path) -> None:
    config = small_config(data_dir)
    config.duration = "1 epoch"
    train(config, Workdir.open(tmp_path / "tiny"), QUIET)
    with pytest.raises(UserError, match=r"--compare=\S+tiny is tested on synthetic/tiny"):
        report.main(["report", f"--workdir={runs}/one", f"--compare={tmp_path}/tiny"])
    assert not list((runs / "one").glob("*.unfinished*"))


def test_nothing_confused_and_classes_without_images(evaluated: EvaluatedRun) -> None:
    predictions = evaluated.evaluation.predictions
    perfect = 9.0 * np.eye(4, dtype=np.float32)[predictions.per_image.label]
    per_image = predictions.per_image._replace(center_scores=perfect)
    keep = predictions.per_image.label != 2
    kept = dataclasses.replace(
        predictions,
        names=[name for name, kept in zip(predictions.names, keep, strict=True) if kept],
        indices=predictions.indices[keep],
        per_image=jax.tree.map(lambda values: values[keep], per_image),
        corrupt=["<i>broken.png is empty"],
    )
    made = dataclasses.replace(evaluated, evaluation=measure(kept, CLASSES))
    filled = contents([made], data_mesh())
    assert filled.top1 == 1.0
    assert filled.embedding is None
    page = as_html(filled)
    assert "No classes were confused" in page
    assert "never recognized" not in page
    assert "&lt;i&gt;broken.png is empty" in page
    assert np.isnan(filled.rows[2].accuracies).all()
    assert (filled.rows[2].images, filled.rows[1].accuracies) == (0, [1.0])
    assert 'data-value="-1" style="--share: 0.0%">–</td>' in page
    assert "nan" not in re.sub(r"data:[^\"]*", "", page)


def test_main_ends_with_it(data_dir: Path, tmp_path: Path) -> None:
    config = small_config(data_dir)
    config.duration, config.runtime.report = "1 epoch", True
    workdir = tmp_path / "run"

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(config, workdir), cwd=ROOT, capture_output=True, text=True, timeout=300
        )

    # Nowhere to write: the run is saved all the same, and the error says so.
    (workdir / "report.html").mkdir(parents=True)
    done = run()
    assert done.returncode == 1
    error = f"error: the run is finished and saved, but has no report: {workdir}/report.html cannot"
    assert done.stderr.splitlines()[-1].startswith(error)
    (workdir / "report.html").rmdir()
    done = run()
    assert done.returncode == 0, done.stderr
    assert "this run is finished" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report    {workdir}/report.html"
    assert "synthetic/tiny" in text_of(workdir / "report.html")
    # Once it is there, it is left alone.
    written = (workdir / "report.html").stat().st_mtime_ns
    assert main.main(["main", *config_flags(config), f"--workdir={workdir}"]) == 0
    assert (workdir / "report.html").stat().st_mtime_ns == written


def test_an_image_has_its_own_class_name_and_maps(tmp_path: Path) -> None:
    """Every class has a color, and a corrupt image comes first: what follows it must not shift."""
    images = tmp_path / "images"
    colors = {"red": (0, 0, 200), "green": (0, 200, 0), "blue": (200, 0, 0), "gray": (90, 90, 90)}
    for split, count in (("train", 8), ("test", 3)):
        for name, color in colors.items():
            (images / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = np.full((40, 40, 3), color, np.uint8)
                pixels[:4, : 4 * index + 4] = 255  # no two are the same file
                cv2.imwrite(str(images / split / name / f"{name}{index}.png"), pixels)
    train_two(tmp_path, folder_config(images, tmp_path / "tfds"))
    runs = [evaluated_run(tmp_path / name) for name in ("one", "other")]
    # As if the first image could not be read.
    for place, made in enumerate(runs):
        predictions = made.evaluation.predictions
        rest = dataclasses.replace(
            predictions,
            names=predictions.names[1:],
            indices=predictions.indices[1:],
            per_image=jax.tree.map(lambda values: values[1:], predictions.per_image),
            corrupt=[predictions.names[0]],
        )
        runs[place] = dataclasses.replace(made, evaluation=measure(rest, sorted(colors)))
    filled = contents(runs, data_mesh())
    assert len(filled.gallery) == 11
    run_images = [RunImages(each, data_mesh()) for each in runs]
    cards = filled.gallery + [card for section in filled.pairs for card in section.cards]
    for card in cards:
        assert card.label in card.name
        assert hue_of(card.views[0].url) == card.label
    names = runs[0].evaluation.predictions.names
    for card in filled.gallery:
        index, label = names.index(card.name), sorted(colors).index(card.label)
        for run, of_run, view in zip(runs, run_images, card.views[1:], strict=True):
            expected = of_run.heat_map_urls([index], [[label]])[0][0]
            assert view.url == expected
            probability = measures.probabilities(run.evaluation.predictions.scores)[index, label]
            assert f"probability {probability:.1%};" in view.note
        assert card.views[1].url != card.views[2].url
        for verdict, run in zip(card.verdicts, runs, strict=True):
            predicted = int(run.evaluation.predictions.scores[index].argmax())
            assert verdict.predicted == sorted(colors)[predicted]
            assert verdict.is_correct == (predicted == label)
    for section in filled.pairs:
        assert {card.label for card in section.cards} <= {section.first, section.second}
        for card in section.cards:
            assert card.verdicts[0].predicted in (section.first, section.second)
            assert card.views[1].title == f"map of {card.label}"


def hue_of(url: str) -> str:
    """The color of the middle of an image."""
    encoded = np.frombuffer(base64.b64decode(url.partition("base64,")[2]), np.uint8)
    decoded = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    assert decoded is not None
    middle = decoded[decoded.shape[0] // 2, decoded.shape[1] // 2]
    if np.ptp(middle) < 30:
        return "gray"
    return ("blue", "green", "red")[int(middle.argmax())]


@pytest.mark.parametrize("scale", [0.0, 1e30])
def test_a_network_without_information_has_a_page(evaluated: EvaluatedRun, scale: float) -> None:
    """Its features are all the same, or overflow."""
    params = jax.tree.map(lambda leaf: leaf * scale, evaluated.trained.variables["params"])
    variables = {**evaluated.trained.variables, "params": params}
    trained = dataclasses.replace(evaluated.trained, variables=variables)
    opened = dataclasses.replace(evaluated, trained=trained)
    made = evaluate_run(opened, data_mesh(), QUIET, crops="one")
    assert made is not None
    filled = contents([made], data_mesh())
    assert filled.embedding is None
    assert "nan" not in re.sub(r"data:[^\"]*", "", as_html(filled))


def test_the_papers_figures_stand_beside_its_own_split_alone() -> None:
    cub = paper_accuracy(Data(name="cub"))
    assert cub is not None
    assert (cub.one_crop, cub.five_crops) == (87.7, 88.6)
    assert paper_accuracy(Data(name="cub", test_split="train[80%:]")) is None
    assert paper_accuracy(Data(name="elpv/eight")) is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(1, 12))
def test_the_gallery_is_spread_over_all_images(true: list[float], count: int) -> None:
    chosen = spread_over(np.asarray(true), count)
    assert len(set(chosen.tolist())) == min(count, len(true))
    shown = np.asarray(true)[chosen]
    assert (np.diff(shown) >= 0).all()
    # As many images below the first as above the last, and as many between any two, but for one.
    order = np.argsort(np.argsort(np.asarray(true), kind="stable"))[chosen]
    gaps = np.diff(order)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
    assert abs(order[0] - (len(true) - 1 - order[-1])) <= 1


def test_examples_are_the_most_confident_errors_of_that_kind() -> None:
    labels = np.array([0, 0, 0, 1, 0, 0])
    predicted = np.array([1, 1, 2, 0, 1, 0])
    confidences = np.array([0.5, 0.9, 0.99, 0.99, 0.7, 0.99])
    chosen = most_confident(labels, predicted, confidences, true=0, predicted_as=1, count=2)
    assert chosen.tolist() == [1, 4]
    none = most_confident(labels, predicted, confidences, true=2, predicted_as=1, count=2)
    assert none.tolist() == []


@given(
    st.integers(2, 9).flatmap(
        lambda classes: st.lists(
            st.lists(st.integers(0, 3), min_size=classes, max_size=classes),
            min_size=classes,
            max_size=classes,
        )
    ),
    st.integers(2, 6),
)
def test_the_confusable_group(confusion: list[list[int]], limit: int) -> None:
    pairs = measures.confused_pairs(np.asarray(confusion))
    group = confusable_group(pairs, limit)
    assert bool(group) == bool(pairs)
    assert len(group) <= limit
    assert group == sorted(set(group))
    if not group:
        return
    # Every class in it hangs together with the others by errors.
    inside = [pair for pair in pairs if {pair.first, pair.second} <= set(group)]
    reached = {group[0]}
    for _ in group:
        reached |= {
            each
            for pair in inside
            if reached & {pair.first, pair.second}
            for each in (pair.first, pair.second)
        }
    assert reached == set(group)
    assert len(group) >= 2


def test_a_group_grows_by_the_pairs_with_most_errors() -> None:
    confusion = np.zeros((6, 6), int)
    for first, second, errors in ((0, 1, 9), (2, 3, 8), (1, 4, 7), (4, 5, 6), (3, 4, 5)):
        confusion[first, second] = errors
    pairs = measures.confused_pairs(confusion)
    assert confusable_group(pairs, 2) == [0, 1]
    assert confusable_group(pairs, 3) == [0, 1, 4]
    assert confusable_group(pairs, 4) == [0, 1, 4, 5]
    assert confusable_group(pairs, 6) == [0, 1, 2, 3, 4, 5]


@pytest.mark.long
def test_two_hundred_classes_fit_into_eight_megabytes(tmp_path: Path) -> None:
    """Noise in every image: the largest that a page's images can be."""
    classes = [f"class {place:03}" for place in range(200)]
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for index in range(3):
                pixels = rng.integers(0, 256, (240, 240, 3), np.uint8)
                cv2.imwrite(str(folder / split / name / f"{index}.jpg"), pixels)
    config = folder_config(folder, tmp_path / "tfds")
    config.duration = "1 epoch"
    config.loss.gce_start = "never"
    train(config, Workdir.open(tmp_path / "run"), QUIET)
    assert report.main(["report", f"--workdir={tmp_path}/run"]) == 0
    assert 1e6 < (tmp_path / "run" / "report.html").stat().st_size < 8e6

"""What is measured of predictions and of maps, against loops, by hand, and planted."""

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from several_processes import run_in_processes
from tiny_run import QUIET, small_config

from fgr_jax.data import images
from fgr_jax.data.source import Example, ExampleSource, open_splits
from fgr_jax.distributed import data_mesh
from fgr_jax.diversification import class_scores
from fgr_jax.evaluate import diversity, measures, predictions
from fgr_jax.evaluate.evaluation import Evaluation, evaluate
from fgr_jax.evaluate.files import FILES, write_files
from fgr_jax.evaluate.predictions import Predictions, averaged_over_crops, predict_split
from fgr_jax.inference.saved_run import TrainedRun, open_run, restore
from fgr_jax.models.network import forward
from fgr_jax.per_class import confusion_matrix, per_class
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train
from fgr_jax.train.step import sum_over_examples

# --- Of scores and labels ---


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, infinities and NaNs, and labels."""
    count, classes = 5, draw(st.sampled_from([3, 8]))  # few shapes: each is compiled
    values = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 3.5, math.nan, math.inf, -math.inf])
    scores = draw(st.lists(values, min_size=count * classes, max_size=count * classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    return np.array(scores, np.float32).reshape(count, classes), np.array(labels, np.int32)


@settings(max_examples=200, deadline=None)
@given(scored())
def test_ranks_are_counted_as_in_training(data: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = data
    ranks = measures.ranks(scores, labels)
    for row, label, rank in zip(scores, labels, ranks, strict=True):
        if not math.isfinite(row[label]):
            assert rank == measures.NEVER
            continue
        ahead = [j for j, score in enumerate(row) if score > row[label]]
        ahead += [j for j in range(label) if row[j] == row[label]]
        assert rank == len(ahead)
    batch = {"label": jnp.asarray(labels), "mask": jnp.ones(len(labels), bool)}
    totals = jax.jit(sum_over_examples)(jnp.asarray(scores), jnp.zeros(len(labels)), batch)
    assert (ranks < 1).sum() == int(totals.top1)
    assert (ranks < 5).sum() == int(totals.top5)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(2, 9), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_the_first_classes_are_in_the_order_of_the_ranks(
    count: int, classes: int, shown: int, seed: int
) -> None:
    scores = np.random.default_rng(seed).integers(-2, 3, (count, classes)).astype(np.float32)
    first = measures.top_classes(scores, shown)
    assert first.shape == (count, min(shown, classes))
    for place in range(first.shape[1]):
        assert (measures.ranks(scores, first[:, place]) == place).all()


def test_probabilities_and_cross_entropies() -> None:
    scores = np.array([[0, math.log(3)], [1000, 0], [-1000, -1000]], np.float32)
    expected = np.array([[0.25, 0.75], [1, 0], [0.5, 0.5]])
    np.testing.assert_allclose(measures.probabilities(scores), expected, rtol=1e-6)
    found = measures.cross_entropies(scores, np.array([0, 1, 1]))
    np.testing.assert_allclose(found, [math.log(4), 1000, math.log(2)], rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(2, 6), st.integers(1, 40))
def test_confusions_and_classes_against_loops(
    data: st.DataObject, classes: int, count: int
) -> None:
    a_class = st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)
    labels, predicted = (np.array(data.draw(a_class)) for _ in range(2))
    matrix = confusion_matrix(labels, predicted, classes)
    both = list(zip(labels.tolist(), predicted.tolist(), strict=True))
    for i, j in itertools.product(range(classes), repeat=2):
        assert matrix[i, j] == both.count((i, j))
    of_classes = per_class(matrix)
    for c in range(classes):
        mine = [prediction for label, prediction in both if label == c]
        assert (of_classes.counts[c], of_classes.hits[c]) == (len(mine), mine.count(c))
        if mine:
            assert of_classes.accuracies[c] == mine.count(c) / len(mine)
        else:
            assert math.isnan(of_classes.accuracies[c])
    pairs = measures.confused_pairs(matrix)
    errors = sum(label != prediction for label, prediction in both)
    expected = {
        (i, j): (both.count((i, j)), both.count((j, i)))
        for i, j in itertools.combinations(range(classes), 2)
        if both.count((i, j)) + both.count((j, i))
    }
    found = {(p.first, p.second): (p.first_as_second, p.second_as_first) for p in pairs}
    assert found == expected
    assert all(pair.share == pair.count / errors for pair in pairs)
    order = [(-pair.count, pair.first, pair.second) for pair in pairs]
    assert order == sorted(order)
    assert sum(pair.count for pair in pairs) == errors


def test_the_calibration_error_by_hand() -> None:
    # Five bins, ]0, .2], ]0.2, .4] ...: .2 is in the first, .5, .6 in the third, .9 and 1 in the last.
    confidences = np.array([0.2, 0.5, 0.6, 0.9, 1.0])
    is_correct = np.array([True, True, False, True, True])
    found = measures.calibration(confidences, is_correct, bins=5)
    assert found.counts.tolist() == [1, 0, 2, 0, 2]
    np.testing.assert_allclose(found.confidences, [0.2, math.nan, 0.55, math.nan, 0.95])
    np.testing.assert_allclose(found.accuracies, [1, math.nan, 0.5, math.nan, 1])
    # 1/5 · |1 − .2| + 2/5 · |.5 − .55| + 2/5 · |1 − .95|
    assert found.error == pytest.approx(0.16 + 0.02 + 0.02)


def test_edges_of_bins_fall_below() -> None:
    edges = np.arange(1, 16) / 15
    found = measures.calibration(edges, np.ones(15, bool))
    assert found.counts.tolist() == [1] * 15


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(1e-6, 1), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 20),
)
def test_the_calibration_error_against_a_loop(
    examples: list[tuple[float, bool]], bins: int
) -> None:
    confidences, correct = (np.array(column) for column in zip(*examples, strict=True))
    error = 0.0
    for index in range(bins):
        inside = (confidences > index / bins) & (confidences <= (index + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    assert measures.calibration(confidences, correct, bins).error == pytest.approx(error)


# --- Of maps ---

NO_PARTS = jnp.zeros((1, 0, 3))


def measured(
    activation: Any, parts: Any = None, stride: int = 32, origin: float = 0.0
) -> dict[str, float]:
    """The measures of one map `[H, W]`."""
    parts = NO_PARTS if parts is None else jnp.asarray(parts, jnp.float32)[None]
    found = diversity.measure(jnp.asarray(activation, jnp.float32)[None], parts, stride, origin)
    return {name: float(value[0]) for name, value in found._asdict().items()}


def test_one_hot_cell() -> None:
    activation = np.full((14, 14), -1.0)
    activation[3, 5] = 7
    assert measured(activation) == {
        "area": pytest.approx(1 / 196),
        "entropy": 0,
        "relative_entropy": 0,
        "parts": 0,
    }
    region = np.asarray(diversity.high_region(jnp.asarray(activation)[None])[0])
    assert np.argwhere(region).tolist() == [[3, 5]]


@pytest.mark.parametrize("origin", [0.0, 15.5])
def test_a_part_is_in_the_cell_that_is_centered_nearest_to_it(origin: float) -> None:
    activation = np.zeros((4, 4))
    activation[1, 2] = 1
    row, column = origin + 32 * 1, origin + 32 * 2
    inside = [(column + dx, row + dy, 1) for dx in (-15, 15) for dy in (-15, 15)]
    outside = [(column + 17, row, 1), (column, row - 17, 1)]
    assert measured(activation, inside + outside, origin=origin)["parts"] == len(inside)


@pytest.mark.parametrize("side", [1, 2, 3, 5, 7, 14, 28])
def test_a_uniform_map(side: int) -> None:
    found = measured(np.full((side, side), 0.3))
    assert found["area"] == pytest.approx(math.ceil(0.8 * side**2) / side**2)
    assert found["entropy"] == pytest.approx(math.log(side**2), abs=1e-5)
    assert found["relative_entropy"] == pytest.approx(1 if side > 1 else 0)


def test_two_equal_blobs_are_both_needed() -> None:
    activation = np.zeros((8, 8))
    activation[1, 1] = activation[6, 6] = 2
    found = measured(activation)
    assert found["area"] == pytest.approx(2 / 64)
    assert found["entropy"] == pytest.approx(math.log(2))
    activation[1, 1] = 8  # which is 80% exactly, and enough
    assert measured(activation)["area"] == pytest.approx(1 / 64)
    activation[1, 1] = 7.9
    assert measured(activation)["area"] == pytest.approx(2 / 64)


def test_what_is_negative_has_no_mass() -> None:
    activation = np.array([[3, -5], [1, 0]], np.float32)
    assert measured(activation) == measured(np.maximum(activation, 0))
    for empty in (np.zeros((2, 2)), np.full((2, 2), -1.0)):
        assert all(math.isnan(value) for value in measured(empty, [[0, 0, 1]]).values())
        assert not diversity.high_region(jnp.asarray(empty)[None]).any()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-3, 9), min_size=6, max_size=6), st.permutations(range(6)))
def test_the_region_is_the_smallest_that_holds_its_share(
    cells: list[int], order: list[int]
) -> None:
    activation = np.array(cells, np.float32).reshape(2, 3)
    mass = np.maximum(activation, 0).ravel()
    if not mass.any():
        return
    region = np.asarray(diversity.high_region(jnp.asarray(activation)[None])[0]).ravel()
    wanted = 0.8 * mass.sum() - 1e-4
    assert mass[region].sum() >= wanted
    smaller = itertools.combinations(range(6), int(region.sum()) - 1)
    assert all(mass[list(subset)].sum() < wanted for subset in smaller)
    found = measured(activation)
    assert found["area"] == pytest.approx(region.mean())
    p = mass[mass > 0] / mass.sum()
    assert found["entropy"] == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
    assert 0 <= found["relative_entropy"] <= 1 + 1e-6
    # Neither its scale nor where its cells lie matters.
    other = measured(1000 * activation.ravel()[order].reshape(2, 3))
    for name in ("area", "entropy"):
        assert other[name] == pytest.approx(found[name], abs=1e-5)


def test_parts_are_counted_in_the_region() -> None:
    activation = np.zeros((14, 14))
    activation[2, 3] = activation[13, 13] = 1  # what these see is centerd at (64, 96), (416, 416)
    inside = [[96, 64, 1], [96 + 15, 64 - 15, 1], [430, 447, 1]]
    outside = [[96 + 17, 64, 1], [64, 96, 1], [96, 64 + 17, 1], [0, 0, 1]]
    hidden = [[96, 64, 0]]
    assert measured(activation, inside)["parts"] == 3
    assert measured(activation, outside)["parts"] == 0
    assert measured(activation, inside + outside + hidden)["parts"] == 3
    # A network whose maps have twice as many cells.
    assert measured(activation, [[48, 32, 1], [96, 64, 1]], stride=16)["parts"] == 1


def test_softmax_outputs_are_averaged_not_scores() -> None:
    scores = np.random.default_rng(0).normal(0, 4, (6, 5, 7)).astype(np.float32)
    averaged = np.asarray(averaged_over_crops(jnp.asarray(scores)))
    expected = np.mean([measures.probabilities(scores[:, crop]) for crop in range(5)], axis=0)
    np.testing.assert_allclose(measures.probabilities(averaged), expected, rtol=1e-5)
    np.testing.assert_allclose(averaged, np.log(expected), rtol=1e-5, atol=1e-6)
    assert (measures.probabilities(scores.mean(axis=1)) - expected).max() > 0.05


# --- Of a run ---


@pytest.fixture(scope="module")
def run(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished run of three epochs, on eight devices."""
    workdir = Workdir.open(tmp_path_factory.mktemp("evaluated") / "run")
    train(small_config(data_dir), workdir, QUIET)
    return open_run(workdir)


@pytest.fixture(scope="module")
def test_split(run: TrainedRun) -> ExampleSource:
    return open_splits(run.config.data, QUIET)[1]


def predict(
    run: TrainedRun, source: Any, *, crops: int = 5, batch_size: int = 8, devices: int = 8
) -> Predictions:
    mesh = data_mesh(jax.devices()[:devices])
    found = predict_split(
        run.config,
        restore(run, None, mesh),
        source,
        mesh,
        QUIET,
        crops=crops,
        batch_size=batch_size,
    )
    assert found is not None
    return found


@pytest.fixture(scope="module")
def five(run: TrainedRun, test_split: ExampleSource) -> Predictions:
    return predict(run, test_split, devices=1, batch_size=16)


def assert_same_predictions(ours: Predictions, theirs: Predictions) -> float:
    """Same images, same order of classes; returns how far probabilities are apart."""
    assert ours.names == theirs.names
    np.testing.assert_array_equal(ours.per_image.label, theirs.per_image.label)
    apart = 0.0
    for name in ("center_scores", "averaged_scores"):
        one, other = (getattr(side.per_image, name) for side in (ours, theirs))
        np.testing.assert_array_equal(measures.top_classes(one, 4), measures.top_classes(other, 4))
        gap = np.abs(measures.probabilities(one) - measures.probabilities(other)).max()
        apart = max(apart, float(gap))
    for name in ("true_map", "predicted_map"):
        both = (getattr(side.per_image, name) for side in (ours, theirs))
        for one, other in zip(*both, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    return apart


@pytest.mark.parametrize(("batch_size", "devices"), [(7, 1), (16, 8), (4, 8), (7, 3), (64, 1)])
def test_the_same_predictions_in_any_batches_on_any_devices(
    run: TrainedRun,
    test_split: ExampleSource,
    five: Predictions,
    batch_size: int,
    devices: int,
) -> None:
    found = predict(run, test_split, batch_size=batch_size, devices=devices)
    apart = assert_same_predictions(found, five)
    print(f"batches of {batch_size} on {devices}: probabilities {apart:.1e} apart")
    assert apart < 2e-6


def test_every_image_once(test_split: ExampleSource, five: Predictions) -> None:
    assert len(test_split) == 27  # in batches of 16: the last is not full
    assert five.names == [test_split[i].name for i in range(27)]
    assert five.per_image.label.tolist() == [test_split[i].label for i in range(27)]
    assert five.per_image.center_scores.shape == five.per_image.averaged_scores.shape == (27, 4)
    assert five.corrupt == []
    assert five.per_image.true_map is not None
    assert np.isfinite(five.per_image.true_map.area).mean() > 0.5  # the others have no mass


def test_one_crop_is_the_center_of_five(
    run: TrainedRun, test_split: ExampleSource, five: Predictions
) -> None:
    one = predict(run, test_split, crops=1)
    assert one.per_image.averaged_scores is None
    assert one.scores is one.per_image.center_scores
    np.testing.assert_allclose(one.scores, five.per_image.center_scores, atol=1e-4)
    assert five.scores is five.per_image.averaged_scores
    assert np.abs(one.scores - five.scores).max() > 0.1


def test_the_results_are_those_of_training(run: TrainedRun, test_split: ExampleSource) -> None:
    last = json.loads((run.workdir.local / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["split"], last["step"]) == ("test", run.calendar.total_steps)
    for batch_size in (8, 7):
        found = evaluate(
            predict(run, test_split, crops=1, batch_size=batch_size), run.class_names
        ).center_crop
        assert (found.top1, found.top5) == (last["top1"], last["top5"])
        assert found.loss == pytest.approx(last["loss"], rel=1e-5)


def test_each_number_of_an_image_by_hand(
    run: TrainedRun, test_split: ExampleSource, five: Predictions
) -> None:
    """From the file's bytes, with nothing of the evaluation in between."""
    trained = restore(run, None, data_mesh(jax.devices()[:1]))
    data = run.config.data
    for index in (0, 5, 26):
        example = test_split[index]
        crops = jnp.asarray(images.test_crops(example.encoded_image, data, 5, None))
        maps = forward(trained.network, trained.variables, crops).maps
        assert maps is not None
        scores = np.asarray(class_scores(maps))
        np.testing.assert_allclose(five.per_image.center_scores[index], scores[-1], atol=1e-4)
        expected = measures.probabilities(scores).mean(axis=0)
        found = measures.probabilities(five.scores[index : index + 1])[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        for of_split, label in (
            (five.per_image.true_map, example.label),
            (five.per_image.predicted_map, scores[-1].argmax()),
        ):
            alone = measured(maps[-1, :, :, label], stride=16)
            for name, value in alone.items():
                assert getattr(of_split, name)[index] == pytest.approx(value, abs=1e-4, nan_ok=True)


class Faulty:
    """A split in which some images are truncated."""

    def __init__(self, source: ExampleSource, faulty: set[int]):
        self._source, self._faulty = source, faulty
        self.data_set, self.split, self.part_count = source.data_set, source.split, 0

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: SupportsIndex) -> Example:
        example = self._source[index]
        if int(index) in self._faulty:
            return Example(example.encoded_image[:100], example.label, example.name)
        return example


def test_corrupt_images_are_left_out_and_named(
    run: TrainedRun, test_split: ExampleSource, five: Predictions
) -> None:
    found = predict(run, Faulty(test_split, {0, 11, 26}))
    assert found.corrupt == [f"{test_split[i].name} is truncated" for i in (0, 11, 26)]
    kept = [i for i in range(27) if i not in (0, 11, 26)]
    assert found.names == [five.names[i] for i in kept]
    np.testing.assert_allclose(found.scores, five.scores[kept], atol=1e-4)
    np.testing.assert_array_equal(found.per_image.label, five.per_image.label[kept])
    none = predict(run, Faulty(test_split, set(range(27))))
    assert (none.names, len(none.corrupt)) == ([], 27)


@pytest.fixture(scope="module")
def evaluation(run: TrainedRun, five: Predictions) -> Evaluation:
    return evaluate(five, run.class_names)


def test_the_parts_of_an_evaluation_fit_together(evaluation: Evaluation) -> None:
    assert evaluation.five_crops is not None
    assert evaluation.five_crops.top1 == evaluation.classes.hits.sum() / 27
    assert evaluation.classes.counts.sum() == evaluation.confusion.sum() == 27
    assert sum(pair.count for pair in evaluation.pairs) == 27 - evaluation.classes.hits.sum()
    assert evaluation.five_crops.calibration.counts.sum() == 27
    assert evaluation.five_crops.calibration.error != evaluation.center_crop.calibration.error
    per_image = evaluation.predictions.per_image
    assert per_image.true_map is not None
    assert evaluation.true_map is not None
    has_mass = ~np.isnan(per_image.true_map.area)
    assert evaluation.true_map.without_mass == 27 - has_mass.sum()
    assert evaluation.true_map.area == pytest.approx(per_image.true_map.area[has_mass].mean())


def test_the_files_hold_what_was_measured(evaluation: Evaluation, tmp_path: Path) -> None:
    folder = tmp_path / "evaluation" / "step-20-five"
    write_files(evaluation, {"step": 20}, folder)
    assert {path.name for path in folder.iterdir()} == set(FILES)
    results = json.loads((folder / "results.json").read_text())
    assert results["step"] == 20
    assert results["images"] == 27
    assert results["five_crops"]["top1"] == evaluation.five_crops.top1  # type: ignore[union-attr]
    assert sum(results["center_crop"]["calibration"]["images"]) == 27
    assert results["maps"]["true_class"]["parts_share"] is None
    rows = read_csv(folder / "predictions.csv")
    table = pyarrow.parquet.read_table(folder / "predictions.parquet")
    assert table.column_names == list(rows[0])
    columns = table.to_pydict()
    names, predicted = evaluation.class_names, evaluation.predicted
    for index, row in enumerate(rows):
        assert row["file_name"] == columns["file_name"][index] == f"test/{_number(row):05}.jpg"
        assert row["label"] == names[evaluation.predictions.per_image.label[index]]
        assert row["predicted"] == columns["predicted"][index] == names[predicted[index, 0]]
        assert row["predicted_4"] == columns["predicted_4"][index] == names[predicted[index, 3]]
        assert float(row["confidence"]) == columns["confidence"][index]
        assert float(row["probability_2"]) == evaluation.confidences[index, 1]
        area = columns["true_map_area"][index]
        assert row["true_map_area"] == ("" if math.isnan(area) else str(area))
    assert {row["file_name"] for row in rows} == {f"test/{i:05}.jpg" for i in range(27)}
    correct = sum(row["label"] == row["predicted"] for row in rows)
    of_classes = read_csv(folder / "per_class.csv")
    assert [row["class"] for row in of_classes] == names
    assert sum(int(row["correct"]) for row in of_classes) == correct
    assert sum(int(row["predicted"]) for row in of_classes) == 27
    assert [float(row["f1"]) for row in of_classes] == evaluation.classes.f1_scores.tolist()
    assert results["balanced_accuracy"] == evaluation.classes.balanced_accuracy
    confusions = read_csv(folder / "confusions.csv")
    assert sum(int(row["errors"]) for row in confusions) == 27 - correct


def _number(row: dict[str, str]) -> int:
    return int(row["file_name"].removeprefix("test/").removesuffix(".jpg"))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_is_written_whole_or_not_at_all(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_: Any, path: Path) -> None:
        path.write_bytes(b"PAR1")
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(pyarrow.parquet, "write_table", half)
    with pytest.raises(OSError, match="No space left"):
        write_files(evaluation, {}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    assert len(read_csv(tmp_path / "predictions.csv")) == 27


def predict_here(workdir: str, batch_size: int, output: str) -> None:
    """Run by every process of a job."""
    run = open_run(Workdir.open(workdir))
    mesh = data_mesh()
    source = open_splits(run.config.data, QUIET)[1]
    read: list[int] = []
    plain = ExampleSource.__getitem__

    def counted(self: ExampleSource, index: SupportsIndex) -> Example:
        read.append(int(index))
        return plain(self, index)

    ExampleSource.__getitem__ = counted  # type: ignore[method-assign]
    found = predict_split(
        run.config,
        restore(run, None, mesh),
        source,
        mesh,
        QUIET,
        crops=5,
        batch_size=batch_size,
    )
    print(json.dumps(sorted(read)))
    assert (found is None) == (jax.process_index() > 0)
    if found is not None:
        true_map, predicted_map = found.per_image.true_map, found.per_image.predicted_map
        assert true_map is not None
        assert predicted_map is not None
        np.savez(
            output,
            names=np.array(found.names),
            **{name: getattr(found.per_image, name) for name in found.per_image._fields[:5]},
            **{f"true_{name}": values for name, values in true_map._asdict().items()},
            **{f"predicted_{n}": v for n, v in predicted_map._asdict().items()},
        )


@pytest.mark.long
@pytest.mark.parametrize(("processes", "devices", "batch_size"), [(2, 2, 8), (2, 1, 7), (3, 1, 16)])
def test_the_same_predictions_from_several_processes(
    run: TrainedRun,
    five: Predictions,
    tmp_path: Path,
    processes: int,
    devices: int,
    batch_size: int,
) -> None:
    output = str(tmp_path / "predictions.npz")
    printed = run_in_processes(
        predict_here,
        run.workdir.name,
        batch_size,
        output,
        processes=processes,
        devices=devices,
    )
    read = [json.loads(text.strip().splitlines()[-1]) for text in printed]
    assert sorted(itertools.chain(*read)) == list(range(27))  # each by one process alone
    assert all(read)
    with np.load(output) as saved:
        maps = {
            f"{kind}_map": diversity.MapMeasures(
                *(saved[f"{kind}_{name}"] for name in diversity.MapMeasures._fields)
            )
            for kind in ("true", "predicted")
        }
        arrays = {name: saved[name] for name in predictions.PerImage._fields if name not in maps}
        per_image = predictions.PerImage(**arrays, **maps)
        apart = assert_same_predictions(
            Predictions(saved["names"].tolist(), np.arange(len(saved["names"])), per_image, []),
            five,
        )
    print(f"{processes} processes × {devices} devices: probabilities {apart:.1e} apart")
    assert apart < 2e-6

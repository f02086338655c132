"""The files of an evaluation: names of every kind are read back, and so are results that overflowed."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.evaluate.diversity import MapMeasures
from fgr_jax.evaluate.evaluation import Evaluation, evaluate
from fgr_jax.evaluate.files import write_files
from fgr_jax.evaluate.predictions import PerImage, Predictions
from fgr_jax.evaluate.tables import print_tables
from fgr_jax.terminal import Terminal

ODD = [
    "[red]",
    ":cat:",
    "10",
    "9",
    "=1+1",
    "-",
    "a,b",
    'say "x"',
    "$x_{$",
    "_y",
    "<b>",
    "..",
    "猫 😀",
]
ODD += [
    "שלום",
    "NULL",
    "nan",
    "1e5",
    "Infinity",
    "True",
    "\ufeffx",
    "a\u2028b",
    "a\nb",
    "x\ty",
    "0x10",
]
NAMES = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def evaluation(
    class_names: list[str], names: list[str], scores: Any, labels: list[int]
) -> Evaluation:
    count = len(names)
    values: list[Any] = [np.full(count, value, np.float32) for value in (0.5, 1, math.nan, 0)]
    maps = MapMeasures(*values)
    per_image = PerImage(
        label=np.asarray(labels),
        mask=np.ones(count, bool),
        center_scores=np.asarray(scores, np.float32),
        averaged_scores=None,
        visible_parts=np.zeros(count, np.int32),
        true_map=maps,
        predicted_map=maps,
    )
    return evaluate(Predictions(names, np.arange(count), per_image, []), class_names)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(NAMES, min_size=2, max_size=7, unique=True), st.lists(NAMES, min_size=1, max_size=9)
)
def test_names_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, class_names: list[str], names: list[str]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "evaluation"
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(class_names), len(names)).tolist()
    made = evaluation(class_names, names, rng.normal(size=(len(names), len(class_names))), labels)
    write_files(made, {"workdir": names[0]}, folder)
    expected = {
        "file_name": names,
        "label": [class_names[label] for label in labels],
        "predicted": [class_names[first] for first in made.predicted[:, 0]],
    }
    table = pyarrow.parquet.read_table(folder / "predictions.parquet").to_pydict()
    rows = _rows(folder / "predictions.csv")
    for column, values in expected.items():
        assert table[column] == values
        assert [row[column] for row in rows] == values
    assert [row["class"] for row in _rows(folder / "per_class.csv")] == class_names
    confused = [(row["class_1"], row["class_2"]) for row in _rows(folder / "confusions.csv")]
    assert confused == [(class_names[pair.first], class_names[pair.second]) for pair in made.pairs]
    assert json.loads((folder / "results.json").read_text())["workdir"] == names[0]
    print_tables(made, names[0], 0.1, Terminal(quiet=True))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 3e38])
def test_scores_that_overflowed_are_valid_json(tmp_path: Path, value: float) -> None:
    scores = [[value, 0, 1], [0, value, 1], [1, 2, 3]]
    made = evaluation(["a", "b", "c"], ["x", "y", "z"], scores, [0, 2, 1])
    write_files(made, {}, tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "results.json").read_text()
    assert json.loads(text, parse_constant=refuse)["images"] == 3
    print_tables(made, "title", 0.1, Terminal(quiet=True))

"""The files that `evaluate` writes, each completely or not at all."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fgr_jax.errors import UserError
from fgr_jax.evaluate.crops import CROPS
from fgr_jax.evaluate.evaluation import Evaluation
from fgr_jax.evaluate.foreign import ForeignImages
from fgr_jax.evaluate.rejection import Rejection
from fgr_jax.files.atomic import atomic_write
from fgr_jax.runs.workdir import Workdir

Columns = dict[str, Sequence[Any]]

REJECTION = "rejection.json"
FILES = {
    "results.json": "everything in the tables above, and the bins of the calibration",
    "per_class.csv": "accuracy, precision, recall and F1 of each class",
    "coverage.csv": "accuracy of the images that predict --reject_below=X keeps, for each X",
    REJECTION: "what predict --reject_below reads: confidences of the test images",
    "confusions.csv": "which classes are confused, most often first",
    "predictions.csv": "every image: its class, the most probable classes, its maps",
    "predictions.parquet": "the same, for pandas and others",
}


def write_files(
    evaluation: Evaluation,
    about: dict[str, Any],
    folder: Path,
    foreign: ForeignImages | None = None,
) -> None:
    """Creates `folder` and writes `FILES` into it.

    In `results.json`, `about` comes first, and the results on foreign images last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    predictions = _prediction_columns(evaluation)
    tables = {
        "predictions.csv": predictions,
        "predictions.parquet": predictions,
        "per_class.csv": _class_columns(evaluation),
        "confusions.csv": _confusion_columns(evaluation),
        "coverage.csv": _coverage_columns(evaluation),
    }
    for name, columns in tables.items():
        with atomic_write(folder / name) as unfinished:
            if name.endswith(".parquet"):
                pyarrow.parquet.write_table(pyarrow.table(columns), unfinished)
            else:
                write_csv(unfinished, columns)
    results = {**about, **evaluation.json()}
    if foreign is not None:
        results["foreign"] = foreign.json()
    for name, value in {"results.json": results, REJECTION: evaluation.rejection.to_json()}.items():
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        with atomic_write(folder / name) as unfinished:
            unfinished.write_text(text + "\n", encoding="utf-8")


def read_rejection(workdir: Workdir, step: int) -> Rejection:
    """Reads what an evaluation of the checkpoint of `step`, with any crops, wrote.

    Raises:
      UserError: it has not been evaluated, or the file is damaged.
    """
    for crops in CROPS:
        path = workdir.evaluation(step, crops).local / REJECTION
        if not path.exists():
            continue
        try:
            return Rejection.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read ({error}): evaluate {workdir.name} again"
            ) from error
    raise UserError(
        f"--reject_below: {workdir.name} has not been evaluated at step {step}, so the confidence in "
        f"test images is not known: run python -m fgr_jax.evaluate --workdir={workdir.name} "
        f"--step={step} first"
    )


def _prediction_columns(evaluation: Evaluation) -> Columns:
    """Returns one row per image. Maps are those of the center crop; NaN for maps without mass."""
    per_image, names = evaluation.predictions.per_image, evaluation.class_names
    has_parts = per_image.visible_parts.any()
    columns: Columns = {
        "file_name": evaluation.predictions.names,
        "label": [names[label] for label in per_image.label],
        "predicted": [names[first] for first in evaluation.predicted[:, 0]],
        "confidence": evaluation.confidences[:, 0].tolist(),
    }
    for place in range(1, evaluation.predicted.shape[1]):
        predicted = evaluation.predicted[:, place]
        columns[f"predicted_{place + 1}"] = [names[index] for index in predicted]
        columns[f"probability_{place + 1}"] = evaluation.confidences[:, place].tolist()
    for kind, maps in (("true", per_image.true_map), ("predicted", per_image.predicted_map)):
        if maps is None:
            continue
        for name, values in maps._asdict().items():
            if name != "parts" or has_parts:
                columns[f"{kind}_map_{name}"] = values.tolist()
    if has_parts:
        columns["visible_parts"] = per_image.visible_parts.tolist()
    return columns


def _class_columns(evaluation: Evaluation) -> Columns:
    classes = evaluation.classes
    return {
        "class": evaluation.class_names,
        "images": classes.counts.tolist(),
        "correct": classes.hits.tolist(),
        "accuracy": classes.accuracies.tolist(),
        "predicted": classes.predicted.tolist(),
        "precision": classes.precisions.tolist(),
        "recall": classes.recalls.tolist(),
        "f1": classes.f1_scores.tolist(),
    }


def _confusion_columns(evaluation: Evaluation) -> Columns:
    names, pairs = evaluation.class_names, evaluation.pairs
    return {
        "class_1": [names[pair.first] for pair in pairs],
        "class_2": [names[pair.second] for pair in pairs],
        "errors": [pair.count for pair in pairs],
        "class_1_taken_for_class_2": [pair.first_as_second for pair in pairs],
        "class_2_taken_for_class_1": [pair.second_as_first for pair in pairs],
        "share_of_all_errors": [pair.share for pair in pairs],
    }


def _coverage_columns(evaluation: Evaluation) -> Columns:
    coverage = evaluation.coverage
    return {
        "reject_below": coverage.reject_below.tolist(),
        "kept": coverage.kept.tolist(),
        "accuracy": coverage.accuracies.tolist(),
    }


def write_csv(path: Path, columns: Columns) -> None:
    """Writes a table with a header; NaN becomes an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        for row in (columns, *zip(*columns.values(), strict=True)):
            line = io.StringIO(newline="")
            # With both characters in the line's end, it quotes the cells that contain either.
            writer = csv.writer(line, lineterminator="\r\n")
            writer.writerow(["" if value != value else value for value in row])  # NaN is empty
            file.write(line.getvalue().removesuffix("\r\n") + "\n")

"""Writes predictions incrementally to a CSV or JSON file, depending on its suffix."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from fgr_jax.errors import UserError
from fgr_jax.files.atomic import atomic_write
from fgr_jax.predict.predictions import Prediction

Add = Callable[[Prediction], None]


@contextlib.contextmanager
def opened(path: Path, class_names: Sequence[str], top: int) -> Iterator[Add]:
    """Yields a function that appends a prediction; the file appears once it is complete.

    Raises:
      UserError: its suffix is neither .csv nor .json, or its folder does not exist.
    """
    formats = {".csv": _csv, ".json": _json}
    if path.suffix not in formats:
        raise UserError(f"--output={path}: must end in {' or '.join(formats)}")
    if not path.parent.is_dir():
        raise UserError(f"--output={path}: the folder {path.parent} does not exist")
    with (
        atomic_write(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        yield from formats[path.suffix](file, class_names, top)


def _csv(file: TextIO, class_names: Sequence[str], top: int) -> Iterator[Add]:
    writer = csv.writer(file)
    columns = [f"{kind}_{place + 1}" for place in range(top) for kind in ("class", "probability")]
    writer.writerow(["file", *columns, "problem"])

    def add(prediction: Prediction) -> None:
        pairs = prediction.named(class_names)
        cells = [cell for pair in pairs for cell in pair] or [""] * (2 * top)
        writer.writerow([str(prediction.image.path), *cells, prediction.image.problem])

    yield add


def _json(file: TextIO, class_names: Sequence[str], top: int) -> Iterator[Add]:
    del top
    separator = "[\n"

    def add(prediction: Prediction) -> None:
        nonlocal separator
        record: dict[str, Any] = {"file": str(prediction.image.path)}
        if prediction.image.problem:
            record["problem"] = prediction.image.problem
        else:
            record["predictions"] = [
                {"class": class_name, "probability": probability}
                for class_name, probability in prediction.named(class_names)
            ]
        file.write(separator + json.dumps(record, ensure_ascii=False))
        separator = ",\n"

    yield add
    file.write("\n]\n")

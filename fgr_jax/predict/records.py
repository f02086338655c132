"""Predictions in a file, written as they come: CSV or JSON, by the file's suffix."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from fgr_jax.errors import UserError
from fgr_jax.files.whole import whole
from fgr_jax.predict.guesses import Guess

Add = Callable[[Guess], None]


@contextlib.contextmanager
def records(path: Path, class_names: Sequence[str], top: int) -> Iterator[Add]:
    """While open, takes one picture after the other; the file is there once it is whole.

    Raises:
      UserError: its suffix is neither .csv nor .json, or its folder does not exist.
    """
    formats = {".csv": _csv, ".json": _json}
    if path.suffix not in formats:
        raise UserError(f"--output={path}: must end in {' or '.join(formats)}")
    if not path.parent.is_dir():
        raise UserError(f"--output={path}: the folder {path.parent} does not exist")
    with whole(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        yield from formats[path.suffix](file, class_names, top)


def _csv(file: TextIO, class_names: Sequence[str], top: int) -> Iterator[Add]:
    writer = csv.writer(file)
    columns = [f"{kind}_{place + 1}" for place in range(top) for kind in ("class", "probability")]
    writer.writerow(["file", *columns, "problem"])

    def add(guess: Guess) -> None:
        cells = [cell for pair in _named(guess, class_names) for cell in pair] or [""] * (2 * top)
        writer.writerow([str(guess.picture.path), *cells, guess.picture.problem])

    yield add


def _json(file: TextIO, class_names: Sequence[str], top: int) -> Iterator[Add]:
    del top
    separator = "[\n"

    def add(guess: Guess) -> None:
        nonlocal separator
        record: dict[str, Any] = {"file": str(guess.picture.path)}
        if guess.picture.problem:
            record["problem"] = guess.picture.problem
        else:
            record["guesses"] = [
                {"class": class_name, "probability": probability}
                for class_name, probability in _named(guess, class_names)
            ]
        file.write(separator + json.dumps(record, ensure_ascii=False))
        separator = ",\n"

    yield add
    file.write("\n]\n")


def _named(guess: Guess, class_names: Sequence[str]) -> list[tuple[str, float]]:
    names = (class_names[index] for index in guess.classes)
    return list(zip(names, guess.probabilities, strict=True))

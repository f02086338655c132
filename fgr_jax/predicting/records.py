"""Predictions in a file, written as they come: CSV or JSON, by the file's suffix."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from fgr_jax.errors import UserError
from fgr_jax.predicting.guesses import Guess

SUFFIXES = (".csv", ".json")


class Records:
    """A file that is there once it is whole."""

    def __init__(self, path: Path, class_names: Sequence[str], top: int):
        """Opens it.

        Raises:
          UserError: its suffix is neither .csv nor .json, or its folder does not exist.
        """
        if path.suffix not in SUFFIXES:
            raise UserError(f"--output={path}: must end in {' or '.join(SUFFIXES)}")
        if not path.parent.is_dir():
            raise UserError(f"--output={path}: the folder {path.parent} does not exist")
        self._path = path
        self._unfinished = path.with_name(path.name + ".unfinished")
        self._class_names = class_names
        self._is_json = path.suffix == ".json"
        self._file = self._unfinished.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file)
        self._count = 0
        if self._is_json:
            self._file.write("[")
        else:
            columns = [
                f"{kind}_{place + 1}" for place in range(top) for kind in ("class", "probability")
            ]
            self._csv.writerow(["file", *columns, "problem"])
        self._top = top

    def add(self, guess: Guess) -> None:
        """One picture, with its guesses or its problem."""
        pairs = [
            (self._class_names[index], probability)
            for index, probability in zip(guess.classes, guess.probabilities, strict=True)
        ]
        name, problem = str(guess.picture.path), guess.picture.problem
        if self._is_json:
            record: dict[str, Any] = {"file": name}
            if problem:
                record["problem"] = problem
            else:
                record["guesses"] = [
                    {"class": class_name, "probability": probability}
                    for class_name, probability in pairs
                ]
            separator = ",\n" if self._count else "\n"
            self._file.write(separator + json.dumps(record, ensure_ascii=False))
        else:
            cells = [cell for pair in pairs for cell in pair] or [""] * (2 * self._top)
            self._csv.writerow([name, *cells, problem])
        self._count += 1

    def __enter__(self) -> "Records":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Puts the file in its place, or takes it away where something went wrong."""
        if kind is None and self._is_json:
            self._file.write("\n]\n")
        self._file.close()
        if kind is None:
            self._unfinished.replace(self._path)
        else:
            self._unfinished.unlink()

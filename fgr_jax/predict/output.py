"""Writes predictions as they are made to a file that is complete after each of them."""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fgr_jax.data.image_files import as_text
from fgr_jax.errors import UserError
from fgr_jax.predict.predictions import Prediction

SUFFIXES = (".csv", ".json", ".jsonl")


def check(path: Path, images: Sequence[Path] = ()) -> None:
    """Checks, without writing anything, that predictions of `images` can be written to `path`.

    Raises:
      UserError: its suffix is none of `SUFFIXES`, its folder does not exist, or it is one of the images.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"--output={path}: must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    if not path.parent.is_dir():
        raise UserError(f"--output={path}: the folder {path.parent} does not exist")
    if path.exists() and any(image.exists() and path.samefile(image) for image in images):
        raise UserError(f"--output={path}: is one of the images to predict; name another file")


class PredictionFile:
    """A table (.csv), an array (.json) or lines of objects (.jsonl), in a file that `check` accepts.

    Whenever the process ends, the predictions so far are in the file, and the file is valid.
    """

    def __init__(
        self, path: Path, class_names: Sequence[str], top: int, *, with_percentiles: bool = False
    ):
        self._path, self._class_names, self._top = path, class_names, top
        self._with_percentiles = with_percentiles
        self._suffix = path.suffix.lower()
        self._count = 0
        self._file = path.open("wb", buffering=0)
        # What follows the last prediction, and where it begins.
        self._tail = b"\n]\n" if self._suffix == ".json" else b""
        self._end = 0
        if self._suffix == ".csv":
            places = range(1, top + 1)
            columns = [f"{kind}_{place}" for place in places for kind in ("class", "probability")]
            columns += ["percentile", "rejected"] if with_percentiles else []
            self._append(_csv_row(["file", *columns, "problem"]))

    def __enter__(self) -> "PredictionFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, prediction: Prediction) -> None:
        """Appends a prediction.

        Raises:
          UserError: the file cannot be written; it has the predictions before.
        """
        if self._suffix == ".csv":
            pairs = prediction.named(self._class_names)
            cells = [cell for pair in pairs for cell in pair] or [""] * (2 * self._top)
            if self._with_percentiles:
                percentile, rejected = prediction.percentile, prediction.is_rejected
                cells += ["", ""] if percentile is None else [percentile, str(rejected).lower()]
            image = prediction.image
            self._append(_csv_row([as_text(image.path), *cells, image.problem]))
        else:
            record = json.dumps(self._record(prediction), ensure_ascii=False, allow_nan=False)
            before, after = (
                ("", "\n") if self._suffix == ".jsonl" else (",\n" if self._count else "[\n", "")
            )
            self._append((before + record + after).encode())
        self._count += 1

    def _record(self, prediction: Prediction) -> dict[str, Any]:
        record: dict[str, Any] = {"file": as_text(prediction.image.path)}
        if prediction.image.problem:
            return record | {"problem": prediction.image.problem}
        named = [
            {"class": name, "probability": probability if math.isfinite(probability) else None}
            for name, probability in prediction.named(self._class_names)
        ]
        if prediction.percentile is not None:
            record |= {"percentile": prediction.percentile, "rejected": prediction.is_rejected}
        return record | {"predictions": named}

    def _append(self, data: bytes) -> None:
        """Writes `data` before the tail."""
        try:
            self._write(data)
        except OSError as error:
            with contextlib.suppress(OSError):  # of which the first is the cause
                self._file.truncate(self._end)
                if self._count:
                    self._write(b"")
            raise UserError(
                f"--output={self._path}: cannot be written ({os.strerror(error.errno or 0)}); the "
                f"{self._count:,} predictions before are in it"
            ) from error
        self._end += len(data)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data + self._tail)
        self._file.seek(self._end)
        while rest:
            rest = rest[self._file.write(rest) :]


def _csv_row(cells: Sequence[Any]) -> bytes:
    row = io.StringIO(newline="")
    csv.writer(row).writerow(cells)
    return row.getvalue().encode()

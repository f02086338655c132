"""JSON files, one record per line, that stay valid if the process is killed at any moment.

Every record has a "step". A run that is resumed from a checkpoint first removes the records of
later steps, since those steps are taken, and recorded, again.
"""

import json
import os
from pathlib import Path
from typing import Any

from fgr_jax.files.atomic import atomic_write


def append(path: Path, record: dict[str, Any]) -> None:
    """Appends a record, and returns once it is on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut_off_after(path: Path, step: int) -> None:
    """Removes the records of later steps, and an incomplete last line."""
    kept = [json.dumps(record) + "\n" for record in read(path) if record["step"] <= step]
    with atomic_write(path) as unfinished:
        unfinished.write_text("".join(kept), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """Reads the records, oldest first, without an incomplete last line."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline is incomplete

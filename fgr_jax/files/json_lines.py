"""Files of JSON, a record to a line, that survive a kill at any moment.

Every record has a "step". A run that goes on from a checkpoint first cuts off what an interrupted run
wrote for later steps: those steps are taken, and written, again.
"""

import json
import os
from pathlib import Path
from typing import Any

from fgr_jax.files.whole import whole


def append(path: Path, record: dict[str, Any]) -> None:
    """Adds a record, and returns once it is on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def cut_off_after(path: Path, step: int) -> None:
    """Takes away the records of later steps, and a last line that is not whole."""
    kept = [json.dumps(record) + "\n" for record in read(path) if record["step"] <= step]
    with whole(path) as unfinished:
        unfinished.write_text("".join(kept), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """The records, oldest first; a last line that a kill or a full disk cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline is cut off

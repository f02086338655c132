"""`fingerprints.jsonl`: digests that tell where two runs part, and in what."""

from pathlib import Path
from typing import Any

import jax

from fgr_jax.digests import as_hex
from fgr_jax.files import json_lines

FILE_NAME = "fingerprints.jsonl"
# In the order in which they come about in a step: what differs first is the cause.
STREAMS = ("images", "labels", "masks", "loss", "parameters")


class FingerprintLog:
    """Appends to the file in a workdir, from `first_step` on; where not `writes`, does nothing."""

    def __init__(self, workdir: Path, *, first_step: int, writes: bool = True):
        self._path = workdir / FILE_NAME
        self._writes = writes
        self._pending: tuple[int, dict[str, jax.Array]] | None = None
        if writes:
            json_lines.cut_off_after(self._path, first_step)

    def note(self, step: int, digests: dict[str, jax.Array]) -> None:
        """Keeps the digests of `step`, one for each of STREAMS, and writes those noted before.

        So nothing waits for the devices.
        """
        self.write_pending()
        self._pending = (step, digests)

    def write_pending(self) -> None:
        """Waits for the digests that were noted last and writes them."""
        if self._pending is None or not self._writes:
            return
        step, digests = self._pending
        self._pending = None
        values: dict[str, Any] = jax.device_get(digests)
        json_lines.append(
            self._path, {"step": step, **{name: as_hex(values[name]) for name in STREAMS}}
        )


def read_fingerprints(workdir: Path) -> dict[int, dict[str, str]]:
    """Digests by step and stream."""
    return {
        record["step"]: {name: record[name] for name in STREAMS}
        for record in json_lines.read(workdir / FILE_NAME)
    }

"""Atomic writes: files are written completely or not at all."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fgr_jax.files.names import with_suffix


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a file beside `path` to write to, which replaces `path` at the end.

    If an error occurs, that file is removed and `path` stays unchanged.
    """
    unfinished = path.with_name(with_suffix(path.name, ".unfinished"))
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)

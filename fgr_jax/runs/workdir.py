"""The folder of one run: whose it is, and what describes it."""

import fcntl
import json
import os
from pathlib import Path
from typing import Any

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.files.whole import whole
from fgr_jax.runs.checkpoints import latest_step
from fgr_jax.runs.folder import LOCK, RunFolder

_CONFIG = "config.json"
_CLASSES = "classes.json"
_DATA = "data.json"

# Where things are and how the machine does it change no result.
_MAY_DIFFER = ("runtime.", "data.data_dir")


def check(workdir: RunFolder, config: Config, data: str, class_names: list[str]) -> None:
    """Checks that `workdir` is free for the run, and writes nothing.

    It is free where no run has saved anything, and where the run that has is the same one.

    Args:
      workdir: the folder.
      config: the run.
      data: which data set and how many examples.
      class_names: of the data set.

    Raises:
      UserError: the folder belongs to another run, or is none.
    """
    folder = workdir.local
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--workdir={workdir.name}: is a file; name a folder")
    if not (folder / _CONFIG).exists() or latest_step(workdir.checkpoints) is None:
        return
    differences = _differences(_read(folder / _CONFIG), config_lib.flat(config))
    found_data = _read(folder / _DATA)
    if found_data != data:
        differences.append(f"data set (there {found_data}, now {data})")
    if _read(folder / _CLASSES) != class_names:
        differences.append("the class names")
    if differences:
        raise UserError(
            f"--workdir={workdir.name} belongs to a run with another config, and was left alone. "
            f"Differing: {'; '.join(differences)}. Use another --workdir, or the same config"
        )


def claim(workdir: RunFolder, config: Config, data: str, class_names: list[str]) -> None:
    """Makes `workdir` the folder of the run, after `check`; this process holds it until it ends.

    Nobody can hold a folder in a bucket: two runs at once in one are not noticed.

    Raises:
      UserError: it cannot be made, or another process is training there.
    """
    try:
        workdir.local.mkdir(parents=True, exist_ok=True)
        lock = os.open(workdir.local / LOCK, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise UserError(f"--workdir={workdir.name}: cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go by the system when we end
    except OSError as error:
        raise UserError(
            f"--workdir={workdir.name}: another process is training there; wait for it, or use another "
            "--workdir"
        ) from error
    write_json(workdir.local / _CLASSES, class_names)
    write_json(workdir.local / _DATA, data)
    write_json(workdir.local / _CONFIG, config_lib.flat(config))


def write_json(path: Path, value: Any) -> None:
    """Writes `value`, whole or not at all."""
    with whole(path) as unfinished:
        text = json.dumps(value, indent=2, ensure_ascii=False)
        unfinished.write_text(text + "\n", encoding="utf-8")


def _read(path: Path) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not value:
            raise ValueError("it is empty")
        return value
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): it describes a run; use another --workdir"
        ) from error


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [
        f"{name} (there {found.get(name)!r}, now {wanted.get(name)!r})"
        for name in sorted(found.keys() | wanted.keys())
        if not name.startswith(_MAY_DIFFER) and found.get(name) != wanted.get(name)
    ]

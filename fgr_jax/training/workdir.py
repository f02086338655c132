"""The folder of one run: whose it is, and what describes it."""

import json
from pathlib import Path
from typing import Any

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.errors import UserError

_CONFIG = "config.json"
_CLASSES = "classes.json"


def claim(workdir: Path, config: Config, class_names: list[str]) -> None:
    """Makes `workdir` the folder of the run `config`, or checks that it is.

    Fields of `runtime` may differ from the last time: nothing there changes a result.

    Raises:
      UserError: the folder belongs to another config, or is no folder that can be written to.
    """
    wanted = config_lib.flat(config)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be made: {error.strerror}") from error
    if not (workdir / _CONFIG).exists():
        write_json(workdir / _CLASSES, class_names)
        write_json(workdir / _CONFIG, wanted)  # last: it is what claims the folder
        return
    differences = _differences(_read(workdir / _CONFIG), wanted)
    if _read(workdir / _CLASSES) != class_names:
        differences.append("the class names of the data set")
    if differences:
        raise UserError(
            f"--workdir={workdir} belongs to a run with another config, and was left alone. "
            f"Differing: {'; '.join(differences)}. Use another --workdir, or the same config"
        )
    write_json(workdir / _CONFIG, wanted)


def write_json(path: Path, value: Any) -> None:
    """Writes `value`, whole or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): it describes a run; use another --workdir"
        ) from error


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    return [
        f"{name} (there {found.get(name)!r}, now {wanted.get(name)!r})"
        for name in sorted(found.keys() | wanted.keys())
        if not name.startswith("runtime.") and found.get(name) != wanted.get(name)
    ]

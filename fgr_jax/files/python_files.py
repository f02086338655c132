"""Python files that define one object for a command: a config or a sweep."""

import runpy
import traceback
from pathlib import Path
from typing import TypeVar

from fgr_jax.errors import UserError

_Kind = TypeVar("_Kind")


def load(path: Path, function: str, kind: type[_Kind], *, flag: str, argument: str | None) -> _Kind:
    """Runs a file and calls the function that it defines.

    Args:
      path: the file.
      function: its name; it is called with `argument`, or with nothing where that is None.
      kind: what it must return.
      flag: names the file in errors, as in "--config".
      argument: of the function.

    Raises:
      UserError: there is no such file, it fails, or it returns something else.
    """
    if not path.is_file():
        beside = sorted(str(found) for found in path.parent.glob("*.py")) or ["none"]
        raise UserError(f"{flag}={path}: no such file; in that folder: {', '.join(beside)}")
    try:
        define = runpy.run_path(str(path))[function]
        defined = define() if argument is None else define(argument)
    except Exception as error:
        cause = traceback.format_exception_only(error)[-1].strip()
        raise UserError(f"{flag}={path} does not work: {cause}") from error
    if not isinstance(defined, kind):
        raise UserError(
            f"{flag}={path}: {function}() must return a {kind.__module__}.{kind.__name__}, "
            f"not {type(defined).__name__}"
        )
    return defined

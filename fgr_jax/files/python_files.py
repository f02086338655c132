"""Python files that define an object for a command: a config, a sweep, a part of a network."""

import difflib
import runpy
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fgr_jax.errors import UserError
from fgr_jax.files.local import no_such

_Kind = TypeVar("_Kind")
_SHOWN = 6  # of the listed names


def load(
    path: Path, function: str, kind: type[_Kind], *, flag: str, arguments: Sequence[Any] = ()
) -> _Kind:
    """Runs a file and returns the result of a function that it defines.

    Args:
      path: the file.
      function: the name of the function, which is called with `arguments`.
      kind: the type that it must return.
      flag: names the file in errors, as in "--config".
      arguments: the arguments of the function.

    Raises:
      UserError: there is no such file, it fails, or it returns something else.
    """
    if not path.is_file():
        raise UserError(f"{flag}={path}: {no_such('file', path)}")
    try:
        names = runpy.run_path(str(path))
        defined = names[function](*arguments) if function in names else None
    except Exception as error:
        cause = traceback.format_exception_only(error)[-1].strip()
        raise UserError(f"{flag}={path} does not work: {_line(error, path)}{cause}") from error
    if function not in names:
        raise UserError(f"{flag}={path} does not define {function}()")
    if not isinstance(defined, kind):
        raise UserError(
            f"{flag}={path}: {function}() must return a {kind.__module__}.{kind.__name__}, "
            f"not {type(defined).__name__}"
        )
    return defined


def _line(error: Exception, path: Path) -> str:
    """Returns "line 12: " for the line of the file that the error comes from, or nothing."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f"line {lines[-1]}: " if lines else ""


def listed_or_own(
    name: str,
    listed: Mapping[str, Callable[..., _Kind]],
    kind: type[_Kind],
    *,
    flag: str,
    arguments: Sequence[Any],
) -> _Kind:
    """Calls the function listed under `name`, or, if `name` is FILE.py:FUNCTION, that function.

    Raises:
      UserError: `name` is neither, or as for `load`.
    """
    if name in listed:
        return listed[name](*arguments)
    file, colon, function = name.rpartition(":")
    if not colon:
        shown = list(listed)
        if len(listed) > _SHOWN:
            similar = difflib.get_close_matches(name, listed, n=_SHOWN, cutoff=0)
            shown = [*similar, f"{len(listed) - _SHOWN} others"]
        known = f"is none of {', '.join(shown)}, and " if listed else "is "
        raise UserError(
            f"{flag}={name!r}: {known}not the form of one of your own, FILE.py:FUNCTION"
        )
    return load(Path(file), function, kind, flag=flag, arguments=arguments)

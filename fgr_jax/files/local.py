"""Paths on this machine, as the user typed them."""

import difflib
import os
import re
from pathlib import Path

from fgr_jax.errors import UserError

_SHOWN = 10  # names
_SCHEME = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")


def local_path(typed: str, flag: str) -> Path:
    """Returns the path of a file or folder on this machine, with the home folder in place of ~.

    Args:
      typed: the path, as given by the user.
      flag: the flag that it was given with, for errors.

    Raises:
      UserError: it is a URL, or begins with ~ and the name of nobody.
    """
    if scheme := _SCHEME.match(typed):
        raise UserError(
            f"{flag}={typed}: {scheme.group()} is not supported here; name a file or folder on this "
            "machine"
        )
    # Not by `Path.expanduser`, for which ./~name is ~name as well.
    expanded = os.path.expanduser(typed)
    if expanded.startswith("~"):
        name = expanded.partition("/")[0]
        raise UserError(
            f"{flag}={typed}: there is no user {name[1:]!r}; a folder of that name is ./{name}"
        )
    return Path(os.path.abspath(expanded)) if expanded.startswith("./~") else Path(expanded)


def no_such(kind: str, path: Path) -> str:
    """Says that there is no such file or folder, and what there is: "no such folder; /data holds birds".

    The folder is the last one of the path that exists. Names with the ending of the missing one, and
    among them those that are spelled alike, stand for all.

    Args:
      kind: what is missing, as in "file".
      path: its path.
    """
    path = path.absolute()
    folder = next(parent for parent in path.parents if parent.is_dir())
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return f"no such {kind}; {folder} cannot be read"
    if not names:
        return f"no such {kind}; {folder} is empty"
    wanted = path.relative_to(folder).parts[0]
    names = [name for name in names if Path(name).suffix == Path(wanted).suffix] or names
    shown = difflib.get_close_matches(wanted, names, n=_SHOWN) or names[:_SHOWN]
    more = f", … ({len(names)} in all)" if len(names) > len(shown) else ""
    return f"no such {kind}; {folder} holds {', '.join(shown)}{more}"

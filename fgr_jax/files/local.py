"""Paths on this machine, as the user typed them."""

import os
import re
from pathlib import Path

from fgr_jax.errors import UserError

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

"""Paths in a bucket, gs://BUCKET/FOLDER, through `etils.epath` and gcsfs."""

import logging
from collections.abc import Callable
from pathlib import Path

from etils import epath

from fgr_jax.errors import UserError

_SCHEME = "gs://"


def is_in_bucket(path: str) -> bool:
    """Returns whether `path` is in a bucket rather than on this machine."""
    return path.startswith(_SCHEME)


def open_folder(path: str, what: str) -> epath.Path:
    """Opens the folder `path` in a bucket. The folder need not exist; the bucket must.

    Args:
      path: gs://BUCKET/FOLDER.
      what: names the path in errors, as in "--workdir"; empty: it is an argument without a flag.

    Raises:
      UserError: gcsfs is not installed, or the bucket cannot be reached.
    """
    named = f"{what}={path}" if what else path
    try:
        import fsspec
        import gcsfs  # noqa: F401  # so that we report the error
    except ImportError as error:
        raise UserError(f"{named}: needs gcsfs: pip install gcsfs") from error
    # It warns at every start that it had to look up the type of the bucket.
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
    # Orbax does not write arrays through gcsfs, whose cached listings would then be wrong.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    bucket = path.removeprefix(_SCHEME).partition("/")[0]
    if not bucket:
        raise UserError(f"{named}: names no bucket; it has the form gs://BUCKET/FOLDER")
    try:
        there = epath.Path(_SCHEME + bucket).exists()
    except Exception as error:  # from gcsfs, google.auth or the network
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{named}: cannot be reached ({type(error).__name__}: {reason}): "
            "gcloud auth application-default login gives access"
        ) from error
    if not there:
        raise UserError(f"{named}: there is no bucket {bucket}, or this account may not see it")
    return epath.Path(path.rstrip("/"))


def files_below(folder: epath.Path) -> dict[str, int]:
    """Returns sizes in bytes by relative path; empty if the folder does not exist."""
    if not folder.exists():
        return {}
    sizes: dict[str, int] = {}
    for path in folder.iterdir():
        if path.is_dir():
            below = files_below(path)
            sizes |= {f"{path.name}/{name}": size for name, size in below.items()}
        else:
            sizes[path.name] = path.stat().length
    return sizes


def fetch(
    folder: epath.Path, files: dict[str, int], destination: Path, done: Callable[[int], None]
) -> None:
    """Copies `files` from `files_below(folder)`; calls `done` with the number of bytes so far."""
    copied = 0
    for name, size in files.items():
        target = destination / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / name).copy(target, overwrite=True)
        copied += size
        done(copied)

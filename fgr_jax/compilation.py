"""How a command compiles: with deterministic kernels, and with a folder of compiled programs.

A program that is found in the folder is read instead of being compiled again. JAX looks for it by its
operations, the versions of jaxlib and the backend, XLA's flags, the devices and the options of the
compiler; a folder for each kind of machine adds the processor and its number of cores.
"""

import contextlib
import glob
import hashlib
import os
import platform
import re
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import jax

from fgr_jax.config import AUTOMATIC, Config
from fgr_jax.distributed import compute_deterministically
from fgr_jax.errors import shown
from fgr_jax.files.local import local_path

MAX_BYTES = 1_000_000_000  # of all programs; those of a training run on a CPU have some megabytes
_FIELD = "--config.runtime.compilation_cache"
_PROBE_BYTES = 1_000_000
_SUFFIX = "-cache"  # of JAX's files: the name of a program, its key, and this
# How JAX warns of a file that cannot be read or written.
_FAILURE = re.compile(
    r"Error (?:reading|writing) persistent compilation cache entry for '([^']+)': (.*)", re.DOTALL
)


def set_up(config: Config) -> None:
    """Sets how JAX compiles for `config`. Must be called before JAX initializes a device.

    A folder that cannot be used is no error: a warning says so, and everything is compiled.

    Raises:
      UserError: the folder of the config is not a path on this machine.
    """
    compute_deterministically(config.deterministic)
    where = config.runtime.compilation_cache
    # The user's own settings of JAX come first.
    if not where or jax.config.values["jax_compilation_cache_dir"]:
        return
    root = users_folder() if where == AUTOMATIC else local_path(where, _FIELD)
    folder = root / machine()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(_PROBE_BYTES))
        _remove_oldest(root)
    except OSError as error:
        _warn(
            f"{folder}: compiled programs cannot be kept there ({error.strerror}), so every start "
            f"compiles them; {_FIELD}=FOLDER names another folder"
        )
        return
    for name, value in (
        ("jax_compilation_cache_dir", str(folder)),
        ("jax_persistent_cache_min_compile_time_secs", 0.0),
        # Without XLA's own caches: the choice between kernels would depend on earlier runs.
        ("jax_persistent_cache_enable_xla_caches", "none"),
    ):
        jax.config.update(name, value)
    _replace_damaged(folder)


def users_folder() -> Path:
    """Returns the folder in the user's cache folder, by the convention of the platform."""
    if sys.platform == "darwin":
        caches = "~/Library/Caches"
    else:
        given = os.environ.get("XDG_CACHE_HOME", "")
        caches = given if os.path.isabs(given) else "~/.cache"
    return Path(os.path.expanduser(caches)) / "fgr_jax"


def machine() -> str:
    """Returns the name of the folder for machines of this kind.

    Home folders are shared between machines, and compiled code uses the instructions of the processor
    that it was compiled for, and is divided between as many threads as there were cores.
    """
    parts = [platform.machine(), platform.processor(), str(_cores())]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        of_interest = re.compile(r"(model name|flags|CPU implementer|CPU part|Features)\s*:")
        parts += sorted({line for line in lines if of_interest.match(line)})
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"{platform.machine() or 'machine'}-{digest[:12]}"


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _remove_oldest(root: Path) -> None:
    """Removes the programs that were not used for longest, until the others have `MAX_BYTES`.

    JAX has a limit of its own, which locks the folder for every program that is read and, once a
    process is killed while it writes, fails to write ever after.
    """
    found = []
    for path in root.glob(f"*/*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            status = path.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    size = sum(each for _, each, _ in found)
    for _, each, path in sorted(found):
        if size <= MAX_BYTES:
            break
        path.unlink(missing_ok=True)
        size -= each


def _replace_damaged(folder: Path) -> None:
    """Removes the files that JAX warns of, which it would keep, and warns once, in one line.

    A file is damaged if a process was killed or the disk was full while it was written.
    """
    show, has_warned = warnings.showwarning, False

    def show_once(message: Warning | str, *arguments: Any, **options: Any) -> None:
        nonlocal has_warned
        failure = _FAILURE.fullmatch(str(message))
        if failure is None:
            show(message, *arguments, **options)
            return
        program, reason = failure.groups()
        with contextlib.suppress(OSError):
            for path in folder.glob(f"{glob.escape(program)}-*{_SUFFIX}"):
                path.unlink(missing_ok=True)
        if not has_warned:
            _warn(f"{folder}: {program} could not be read or written ({reason}) and is compiled")
        has_warned = True

    warnings.showwarning = show_once


def _warn(text: str) -> None:
    print(f"warning: {shown(text)}", file=sys.stderr, flush=True)

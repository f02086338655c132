"""The provenance of a run: versions, devices, code, command."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from fgr_jax.files import json_lines
from fgr_jax.runs.workdir import PROVENANCE

# Packages that can change a result.
_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "array_record",
    "tensorflow-datasets",
    "ml_collections",
    "numpy",
    "opencv-python-headless",
)


def provenance() -> dict[str, Any]:
    """Returns the time, and the package versions, devices, git revision and command of this process."""
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "process_count": jax.process_count(),
        "devices": [
            f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()
        ],
    }


def starting_weights(folder: Path) -> str:
    """Returns the weights that a run started from, with their license; "" if they are not recorded.

    A run that was killed before its first checkpoint has several records of the first step, the last of
    which is of the weights that it was trained from.
    """
    starts = json_lines.read(folder / PROVENANCE)
    return next((start["weights"] for start in reversed(starts) if start.get("weights")), "")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Returns the commit of this source tree, with "-dirty" if it was modified; None outside git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()

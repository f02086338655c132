"""Generated images, and the server as a process of its own."""

import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tiny_run import ROOT

JPEG = {"content-type": "image/jpeg"}


def an_image(seed: int, height: int = 40, width: int = 56, suffix: str = ".jpg") -> bytes:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.imencode(suffix, cv2.resize(coarse, (width, height)))[1].tobytes()


def ask(address: str, encoded: bytes, query: str = "") -> Any:
    """The answer of a server to an image."""
    request = urllib.request.Request(f"{address}/predict{query}", encoded, JPEG)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@contextlib.contextmanager
def served(workdir: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """The command, and the address that it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "fgr_jax.serve", f"--workdir={workdir}", "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    address = next((line for line in process.stdout if line.startswith("http://")), "")
    try:
        assert address, process.communicate()
        yield process, address.strip()
    finally:
        process.kill()
        process.communicate()

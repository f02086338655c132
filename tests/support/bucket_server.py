"""A fixture: a bucket in an emulator of Google Cloud Storage on this machine."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from several_processes import free_port
from tiny_run import ROOT


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """gs://bucket, emptied of everything but itself, for this process and those it starts."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "support" / "bucket_emulator.py"), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://localhost:{port}"
    before = dict(os.environ)
    os.environ |= {
        "STORAGE_EMULATOR_HOST": address,  # for gcsfs
        "TENSORSTORE_GCS_HTTP_URL": address,  # for Orbax's arrays
        "GCE_METADATA_HOST": "localhost:1",  # asks no machine of Google's for a password
    }
    try:
        yield "gs://bucket"
    finally:
        server.kill()
        server.wait()
        os.environ.clear()
        os.environ |= before

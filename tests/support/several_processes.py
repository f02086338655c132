"""Runs a function in several processes that form one `jax.distributed` job on this machine."""

import inspect
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_TESTS = Path(__file__).parents[1]
_START = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", {devices})
jax.distributed.initialize("localhost:{port}", {processes}, {index}, initialization_timeout=60)
import {module}
{module}.{function}(*{arguments!r})
"""


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def run_in_processes(
    function: Callable[..., None], *arguments: object, processes: int = 2, devices: int = 1
) -> list[str]:
    """Calls `function(*arguments)` in every process; returns what each printed.

    Args:
      function: of a file in tests, by whose path it is found.
      arguments: passed on; their `repr` must give them back.
      processes: how many.
      devices: in each process.
    """
    file = Path(inspect.getfile(function)).relative_to(_TESTS)
    port = free_port()
    started = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                _START.format(
                    port=port,
                    processes=processes,
                    devices=devices,
                    index=index,
                    module=".".join(file.with_suffix("").parts),
                    function=function.__name__,
                    arguments=arguments,
                ),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for index in range(processes)
    ]
    printed = [process.communicate(timeout=240)[0] for process in started]
    for process, text in zip(started, printed, strict=True):
        assert process.returncode == 0, text
    return printed

"""Runs a function in several processes that form one `jax.distributed` job on this machine."""

import os
import socket
import subprocess
import sys

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
    function: str, *arguments: object, processes: int = 2, devices: int = 1
) -> list[str]:
    """Calls `module.function(*arguments)` in every process; returns what each printed.

    Args:
      function: "module.function", of a module that can be imported here.
      arguments: passed on; their `repr` must give them back.
      processes: how many.
      devices: in each process.
    """
    module, _, name = function.rpartition(".")
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
                    module=module,
                    function=name,
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

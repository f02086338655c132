"""Runs the commands of docs/benchmarks.md on this machine and writes what they print into the page.

python docs/update_benchmarks.py [WORD ...]

Only commands that contain each WORD are run again. The page has each command in a block, its output in
the next one, and then where and when it was made. Nothing else should run meanwhile.
"""

import datetime
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import jax

PAGE = Path(__file__).with_name("benchmarks.md")
# A command, its output, and the machine and date.
BLOCK = re.compile(r"```\n(?P<command>.*)\n```\n\n```text\n(?:.*\n)*?```\n\n\*.*\*\n")


def machine() -> str:
    """Describes the processor, the number of its cores, and JAX's version."""
    cpu = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
        cpu = names[0] if names else cpu
    return f"{cpu}, {os.cpu_count()} cores, jax {jax.__version__}"


def renewed(block: re.Match[str]) -> str:
    """Returns the block with what its command prints now."""
    command = block["command"]
    if not all(word in command for word in sys.argv[1:]):
        return block[0]
    print(command, flush=True)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        command,
        shell=True,
        cwd=PAGE.parent.parent,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        print(f"error: status {done.returncode}; the figures stay as they were", file=sys.stderr)
        return block[0]
    lines = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
    today = datetime.date.today().isoformat()
    return f"```\n{command}\n```\n\n```text\n{lines}\n```\n\n*{machine()}; {today}*\n"


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(renewed, text), encoding="utf-8")


if __name__ == "__main__":
    main()

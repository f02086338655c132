"""Memory in huge pages, with which a CPU trains and predicts faster by a fifth or more.

The arrays of a step are so large that the processor has to look up, again and again, where their pages
lie. Pages of two megabytes in place of four kilobytes need few such lookups.
"""

import os
import sys
from pathlib import Path

_MODES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_VARIABLE, _SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def request() -> None:
    """Replaces this process by one that runs the same command and asks the system for huge pages.

    glibc reads the setting from the environment when a process starts. Nothing happens where the system
    gives huge pages to no process or to all, or where GLIBC_TUNABLES is set, as in the new process; a
    user who does not want huge pages sets it to nothing.
    """
    if _VARIABLE in os.environ or not _are_on_request():
        return
    os.environ[_VARIABLE] = _SETTING
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _are_on_request() -> bool:
    try:
        return "[madvise]" in _MODES.read_text()
    except OSError:  # another system than Linux
        return False

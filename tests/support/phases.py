"""Runs `fgr_jax.main`, and keeps the phase that it is in in a file: phases.py FILE ARGUMENTS ...

A thread looks at the stack of the main thread, so that the run itself is as without it.
"""

import os
import runpy
import signal
import sys
import threading
import time
import types
from pathlib import Path

PHASES = (
    "importing",
    "opening",
    "compiling",
    "starting",  # everything else before the first step
    "starting workers",
    "training",
    "evaluating",
    "saving",
    "ending",
)
COMPUTING = "computing features"  # of a run on cached features
_POLL_S = 0.002
_PACKAGE = Path(__file__).parent.parent.parent / "fgr_jax"


def _line_of(module: str, text: str) -> int:
    lines = (_PACKAGE / module).read_text(encoding="utf-8").splitlines()
    (number,) = (number for number, line in enumerate(lines, start=1) if line.strip() == text)
    return number


_LOOP_BEGINS = _line_of(
    "train/loop.py", "with Interruption(terminal.warn) as interruption, checkpoints, recorder:"
)
_TRAINED = _line_of("main.py", "outcome = train(config, workdir, terminal)")
_WORKERS_START = _line_of("data/pipeline.py", "with signals.blocked():")


def phase_of(frame: types.FrameType | None) -> str:
    """Returns the phase of a stack, of which `frame` is the innermost."""
    found: dict[str, int] = {}
    in_jax = False
    while frame is not None:
        path = frame.f_code.co_filename
        in_jax |= "jax/_src/compiler" in path or "jax/_src/interpreters" in path
        if path.startswith(str(_PACKAGE)):
            name = f"{path.removeprefix(str(_PACKAGE))[1:]}:{frame.f_code.co_name}"
            found.setdefault(name, frame.f_lineno)
        frame = frame.f_back
    loop = found.get("train/loop.py:train", 0)
    if "train/recorder.py:save" in found or "runs/checkpoints.py:__exit__" in found:
        return "saving"
    if _WORKERS_START < found.get("data/pipeline.py:__next__", 0) <= _WORKERS_START + 2:
        return "starting workers"
    if "features/computing.py:_compute" in found:
        return COMPUTING
    if in_jax:
        return "compiling"
    if "train/evaluation.py:evaluate" in found:
        return "evaluating"
    if loop >= _LOOP_BEGINS:
        return "training"
    if "data/source.py:open_sources" in found:
        return "opening"
    main = found.get("main.py:main", 0)
    if main > _TRAINED:
        return "ending"
    return "starting" if main else "importing"


def _watch(file: int, main_thread: int) -> None:
    was_running = False
    while True:
        frame = sys._current_frames().get(main_thread)
        phase = phase_of(frame)
        was_running |= phase == "training"
        if phase == "importing":
            signals = sys.modules.get("fgr_jax.signals")
            is_handled = signals and signal.getsignal(signal.SIGPIPE) is not signal.SIG_IGN
            phase = "ending" if was_running else "importing" if is_handled else "python"
        os.pwrite(file, phase.encode().ljust(32), 0)
        time.sleep(_POLL_S)


if __name__ == "__main__":
    file = os.open(sys.argv.pop(1), os.O_RDWR | os.O_CREAT)
    threading.Thread(target=_watch, args=(file, threading.get_ident()), daemon=True).start()
    runpy.run_module("fgr_jax.main", run_name="__main__", alter_sys=True)

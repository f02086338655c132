"""Signals that stop a command: Ctrl-C, SIGTERM, a dropped connection and a pipe without a reader.

After signal n a command ends with one line and status 128 + n. Training finishes its step and saves
first (`deferred`). A second Ctrl-C or SIGTERM ends the process at once; a second SIGHUP does not, since
the terminal, the shell and the session manager each send one when a connection drops.

A thread reads the signals from a pipe as they arrive, because Python calls handlers in the main thread
alone, which may be compiling or waiting for a device.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from typing import Any, NoReturn

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_INSISTING = (signal.SIGINT, signal.SIGTERM)
_REPEATED_S = 0.1  # the same signal again within this time, as wrappers forward it, counts once


class Stopped(KeyboardInterrupt):
    """A signal asks the process to end. Raised in the main thread, like `KeyboardInterrupt`."""

    def __init__(self, number: signal.Signals):
        super().__init__(f"stopped by {number.name}")
        self.number = number


@dataclasses.dataclass
class Deferral:
    """A time in which signals are noted instead of raised."""

    requested: signal.Signals | None  # the first signal
    on_signal: Callable[[signal.Signals], None]  # called in the main thread
    announce: Callable[[signal.Signals], None]  # called in another thread, for the first signal
    ends_at_second: bool


@dataclasses.dataclass
class _State:
    first: signal.Signals | None = None
    running: bool = False  # within `raised`
    ending: bool = False
    pipe_is_broken: bool = False
    deferral: Deferral | None = None


_state = _State()


def install() -> None:
    """Makes each of the signals end the process, with one line and its status.

    Signals that were ignored when the process started, as under nohup, stay ignored.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=[reader], daemon=True, name="signals").start()
    previous = sys.unraisablehook

    def raise_again(unraisable: Any) -> None:
        # Python drops what is raised while an object is being finalized.
        if isinstance(unraisable.exc_value, Stopped):
            number = unraisable.exc_value.number
            _state.first = None
            threading.Timer(_REPEATED_S / 10, _send_to_main_thread, [number]).start()
        else:
            previous(unraisable)

    sys.unraisablehook = raise_again
    install_handlers()


def install_handlers() -> None:
    """Installs the handlers, again if some library has replaced one."""
    for number in STOPPING:
        if not _is_ignored(number):
            signal.signal(number, _handle)


def is_command() -> bool:
    """Returns whether this process runs one of the commands; false in its worker processes."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.startswith(f"{__package__}.")


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Raises `Stopped` for the first signal; outside of this context it ends the process at once."""
    _state.running = True
    try:
        yield
    finally:
        _state.running = False


@contextlib.contextmanager
def deferred(
    on_signal: Callable[[signal.Signals], None] = lambda _: None,
    announce: Callable[[signal.Signals], None] = lambda _: None,
    *,
    ends_at_second: bool = True,
) -> Iterator[Deferral]:
    """Notes signals instead of raising `Stopped`.

    Args:
      on_signal: called with every signal.
      announce: called with the first signal, at once, in another thread.
      ends_at_second: whether a second Ctrl-C or SIGTERM ends the process.
    """
    previous = {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in previous.items():
        # Not what is installed already: JAX handles SIGTERM in the processes of a job.
        if handler is not _handle and not _is_ignored(number):
            signal.signal(number, _handle)
    _state.deferral = Deferral(None, on_signal, announce, ends_at_second)
    try:
        yield _state.deferral
    finally:
        _state.deferral = None
        for number, handler in previous.items():
            if handler is not _handle:
                signal.signal(number, handler)


@contextlib.contextmanager
def blocked() -> Iterator[None]:
    """Blocks the signals in this thread, and in the threads and processes that it starts meanwhile.

    They still reach this process through its other threads, and its main thread handles them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        # The resource tracker of `multiprocessing` is started first, since that unblocks SIGINT and
        # SIGTERM, which it ignores. It removes what an ended process left in shared memory, as it
        # should: the warning about that is turned off.
        sys.warnoptions.append("ignore:resource_tracker:UserWarning")
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        yield
    finally:
        sys.warnoptions.remove("ignore:resource_tracker:UserWarning")
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pipe_is_broken() -> None:
    """Handles that the reader of this process's output is gone, as SIGPIPE. Any thread may call it."""
    _state.pipe_is_broken = True
    _send_to_main_thread(signal.SIGPIPE)


def end(status: int) -> NoReturn:
    """Ends the process and its worker processes, without waiting for threads."""
    _state.ending = True
    for child in multiprocessing.active_children():
        child.kill()
    os._exit(status)


def _send_to_main_thread(number: signal.Signals) -> None:
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, number)


def _is_ignored(number: signal.Signals) -> bool:
    # Python itself ignores SIGPIPE.
    return signal.getsignal(number) is signal.SIG_IGN and number != signal.SIGPIPE


def _handle(raw_number: int, _: object) -> None:
    """Called by Python, in the main thread."""
    number = signal.Signals(raw_number)
    if number == signal.SIGPIPE and not _state.pipe_is_broken:
        return  # of a socket: whoever writes there gets an error
    if _state.ending:
        return
    is_first, _state.first = _state.first is None, _state.first or number
    if _state.deferral:
        _state.deferral.requested = _state.deferral.requested or number
        _state.deferral.on_signal(number)
    elif not _state.running:
        _end_at_once(f"stopped by {number.name}", number)
    elif is_first:
        raise Stopped(number)


def _watch(reader: int) -> None:
    """Reads the number of every signal from a pipe, as soon as it arrives."""
    insisted, last, last_time = 0, 0, 0.0
    announced: Deferral | None = None
    while True:
        (raw_number,) = os.read(reader, 1)
        if raw_number not in STOPPING:
            continue
        number = signal.Signals(raw_number)
        if number == signal.SIGPIPE and not _state.pipe_is_broken:
            continue
        repeated = number == last and time.monotonic() < last_time + _REPEATED_S
        last, last_time = number, time.monotonic()
        insisted += number in _INSISTING and not repeated
        deferral = _state.deferral
        if insisted > 1 and (deferral is None or deferral.ends_at_second):
            _end_at_once("stopped without saving", _state.first or number)
        if deferral and deferral is not announced:
            announced = deferral
            deferral.announce(number)


def _end_at_once(message: str, number: signal.Signals) -> NoReturn:
    _state.ending = True  # before a write to a broken pipe, which sends a SIGPIPE
    with contextlib.suppress(OSError):
        show_cursor = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""  # a progress bar may be drawn
        os.write(2, f"{show_cursor}{message}\n".encode())
    end(128 + number)

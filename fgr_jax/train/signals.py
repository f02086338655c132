"""Ctrl-C and SIGTERM: finish the step, save, and leave."""

import os
import signal
import types
from collections.abc import Callable

import jax

from fgr_jax import distributed


class Interruption:
    """While open, the first SIGINT or SIGTERM is noted; a second one interrupts at once.

    With several processes a SIGTERM to one of them (a preemption) is told to all by JAX, which also
    finds the step after which all of them can leave; Ctrl-C is passed on as one.
    """

    def __init__(self, announce: Callable[[str], None]):
        self._announce = announce
        self._signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> signal.Signals | None:
        """The signal that asked for an end, or None."""
        return self._signal

    def is_due(self, step: int) -> bool:
        """Whether to leave after `step`; to be asked after every step, by every process."""
        if self._signal is None and distributed.preemption_is_due(step):
            self._signal = signal.SIGTERM
            self._announce("SIGTERM: saving after this step, in all processes")
        return self._signal is not None

    def __enter__(self) -> "Interruption":
        if jax.process_count() > 1:  # JAX has taken SIGTERM
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, _pass_on)
            return self
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as `signal.signal` gave it

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number)
        self._announce(
            f"{self._signal.name}: saving after this step (once more: stop at once, without saving)"
        )


def _pass_on(number: int, frame: types.FrameType | None) -> None:
    del number, frame
    os.kill(os.getpid(), signal.SIGTERM)

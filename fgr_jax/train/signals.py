"""Ctrl-C and SIGTERM: the run finishes its step, saves, and exits."""

import os
import signal
import types
from collections.abc import Callable

import jax

from fgr_jax import distributed


class Interruption:
    """A context in which the first SIGINT or SIGTERM requests a stop, and a second one interrupts.

    With several processes, JAX reports a SIGTERM to one of them (a preemption) to all, and determines
    the step after which all of them can exit; Ctrl-C is converted to a SIGTERM.
    """

    def __init__(self, announce: Callable[[str], None]):
        self.requested: signal.Signals | None = None  # the signal that requested the stop
        self._announce = announce
        self._previous: dict[signal.Signals, object] = {}

    def is_due(self, step: int) -> bool:
        """Returns whether to stop after `step`. Every process must call this after every step."""
        if self.requested is None and distributed.preemption_is_due(step):
            self.requested = signal.SIGTERM
            self._announce("SIGTERM: saving after this step, in all processes")
        return self.requested is not None

    def __enter__(self) -> "Interruption":
        ours = [signal.SIGINT, signal.SIGTERM]
        if jax.process_count() > 1:
            ours.remove(signal.SIGTERM)  # handled by JAX
        self._previous = {number: signal.signal(number, self._note) for number in ours}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as `signal.signal` gave it

    def _note(self, number: int, _: types.FrameType | None) -> None:
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = signal.Signals(number)
        self._announce(
            f"{self.requested.name}: saving after this step (a second one stops at once, without saving)"
        )

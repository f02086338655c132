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
        self.requested: signal.Signals | None = None  # the signal that asked for an end
        self._announce = announce
        self._previous: dict[signal.Signals, object] = {}

    def is_due(self, step: int) -> bool:
        """Returns whether to leave after `step`; to be asked after every step, by every process."""
        if self.requested is None and distributed.preemption_is_due(step):
            self.requested = signal.SIGTERM
            self._announce("SIGTERM: saving after this step, in all processes")
        return self.requested is not None

    def __enter__(self) -> "Interruption":
        ours = [signal.SIGINT, signal.SIGTERM]
        if jax.process_count() > 1:
            ours.remove(signal.SIGTERM)  # JAX has taken it
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
            f"{self.requested.name}: saving after this step (once more: stop at once, without saving)"
        )

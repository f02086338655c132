"""Ctrl-C and SIGTERM: finish the step, save, and leave."""

import signal
import types
from collections.abc import Callable


class Interruption:
    """While open, the first SIGINT or SIGTERM is noted; a second one interrupts at once."""

    def __init__(self, announce: Callable[[str], None]):
        self._announce = announce
        self._signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    @property
    def requested(self) -> signal.Signals | None:
        """The signal that asked for an end, or None."""
        return self._signal

    def __enter__(self) -> "Interruption":
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

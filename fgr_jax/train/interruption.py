"""Stops a run between two steps or two batches of an evaluation, so that it can be saved."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax

from fgr_jax import distributed, signals
from fgr_jax.errors import UserError


class Interruption:
    """A context in which the first signal requests a stop; see `fgr_jax.signals`.

    With several processes, JAX reports a SIGTERM to one of them (a preemption) to all, and determines
    the check at which all of them can stop; other signals are converted to a SIGTERM.
    """

    def __init__(self, warn: Callable[[str], None]):
        self.requested: signal.Signals | None = None  # the signal that requested the stop
        self.failure: UserError | None = None  # the error that did, after `noting`
        self._warn = warn
        self._stack = contextlib.ExitStack()

    def is_due(self) -> bool:
        """Returns whether to stop now. Every process must call this at the same places."""
        if jax.process_count() == 1:
            self.requested = self._deferral.requested
        elif self.requested is None and distributed.preemption_is_due():
            self.requested = signal.SIGTERM
            self._warn("SIGTERM: saving after this step, in all processes")
        return self.requested is not None

    @contextlib.contextmanager
    def noting(self, kind: type[UserError]) -> Iterator[None]:
        """Notes an error of this kind, after which the run can still be saved.

        With several processes it is raised: the others cannot save without this one.
        """
        try:
            yield
        except kind as error:
            if jax.process_count() > 1:
                raise
            self.failure = error

    def __enter__(self) -> "Interruption":
        self._deferral = self._stack.enter_context(signals.deferred(self._note, self._announce))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _note(self, _: signal.Signals) -> None:
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def _announce(self, number: signal.Signals) -> None:
        self._warn(
            f"{number.name}: saving after this step (a second one stops at once, without saving)"
        )

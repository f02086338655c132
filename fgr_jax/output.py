"""Standard output and error that can be lost without an error. Needs no other package."""

import errno
import io
import os
import sys

from fgr_jax import signals


class Output(io.TextIOWrapper):
    """Standard output or error that never raises, because losing it must not cost a run its results.

    Characters that the encoding lacks are escaped. After a failed write the rest goes to /dev/null, and
    `failure` tells why. If the reader of a pipe is gone, the process is stopped as by SIGPIPE; if the
    terminal is gone, it got a SIGHUP, unless it is to survive that.
    """

    failure: OSError | None = None

    def write(self, text: str) -> int:
        """Writes `text`."""
        try:
            return super().write(text)
        except OSError as error:
            self._lost(error)
            return len(text)

    def flush(self) -> None:
        """Writes what is buffered."""
        try:
            super().flush()
        except OSError as error:
            self._lost(error)

    def _lost(self, error: OSError) -> None:
        self.failure = error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if error.errno == errno.EPIPE:
            signals.pipe_is_broken()


def guard_output() -> None:
    """Replaces standard output and error by an `Output`, and opens those that are closed on /dev/null.

    Otherwise the next file that the process opens would take their place, and receive what is printed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, Output):
            buffering = 0 if stream.write_through else -1
            output = Output(
                os.fdopen(stream.fileno(), "wb", buffering, closefd=False),
                stream.encoding,
                "backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, output)


def failure_of(name: str) -> OSError | None:
    """Returns why "stdout" or "stderr" has been lost; None if it has not."""
    return getattr(getattr(sys, name), "failure", None)

"""Who is told what happens to a data set, as protocols: this package knows no terminal."""

import contextlib
from typing import Protocol


class Bar(Protocol):
    """Shows how much is done."""

    def update(self, done: int, note: str = "") -> None:
        """Sets it."""


class Audience(Protocol):
    """Whoever is told what happens; `reporting.terminal.Terminal` for one."""

    def line(self, text: str) -> None:
        """One line of what happened."""

    def warn(self, text: str) -> None:
        """One line that the person should read."""

    def bar(
        self, what: str, total: int, *, start: int = 0, unit: str, per: int
    ) -> contextlib.AbstractContextManager[Bar]:
        """Open while something is under way."""

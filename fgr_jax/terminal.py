"""Terminal output: a progress bar, lines and tables.

Lines and tables go to standard output, the bar to standard error. There is no bar where standard error
is not a terminal, and there are no colors where standard output is not a terminal.
"""

import contextlib
from collections.abc import Iterator

from rich import progress, table
from rich.console import Console


class Bar:
    """A progress bar."""

    def __init__(self, drawn: progress.Progress, task: progress.TaskID):
        self._drawn, self._task = drawn, task

    def update(self, done: int, note: str = "") -> None:
        """Sets the number of finished steps, and the note after the bar."""
        self._drawn.update(self._task, completed=done, note=note)


class Terminal:
    """Writes lines, bars and tables, or nothing with `quiet=True`."""

    def __init__(self, *, quiet: bool = False):
        self._out = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bars = 0

    def line(self, text: str) -> None:
        """Writes a line."""
        self._console().print(text, markup=False)

    def warn(self, text: str) -> None:
        """Writes a warning, in one line."""
        self._console().print(f"warning: {text}", style="yellow", markup=False)

    def table(self, title: str, rows: list[tuple[str, ...]], header: tuple[str, ...]) -> None:
        """Writes a table, its first column aligned to the left and the others to the right."""
        drawn = table.Table(title=title, title_justify="left")
        for index, name in enumerate(header):
            drawn.add_column(name, justify="left" if index == 0 else "right", no_wrap=index == 0)
        for row in rows:
            drawn.add_row(*row)
        self._out.print(drawn)

    def _console(self) -> Console:
        """Returns standard output, or the console of the bar that would overwrite the line."""
        overwritten = self._bars and self._out.is_terminal and self._err.is_terminal
        return self._err if overwritten else self._out

    @contextlib.contextmanager
    def bar(self, what: str, total: int, *, start: int = 0, unit: str, per: int) -> Iterator[Bar]:
        """Shows a progress bar while the context lasts.

        Args:
          what: the description before the bar.
          total: number of steps.
          start: number of steps that are done already.
          unit: what the rate counts, such as "images".
          per: the number of units in a step.
        """
        drawn = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            _RateColumn(unit, per),
            progress.TextColumn("{task.fields[note]}"),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=self._err,
            transient=True,
            disable=not self._err.is_terminal,
        )
        task = drawn.add_task(what, total=total, completed=start, note="")
        self._bars += 1
        try:
            with drawn:
                yield Bar(drawn, task)
        finally:
            self._bars -= 1


class _RateColumn(progress.ProgressColumn):
    def __init__(self, unit: str, per: int):
        super().__init__()
        self._unit, self._per = unit, per

    def render(self, task: progress.Task) -> str:
        if not task.speed:
            return f"- {self._unit}/s"
        return f"{task.speed * self._per:.1f} {self._unit}/s"

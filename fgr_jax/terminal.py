"""Terminal output: a progress bar, lines and tables.

Lines and tables go to standard output, the bar to standard error. There is no bar where standard error
is not a terminal, and there are no colors where standard output is not a terminal.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from rich import progress, table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from fgr_jax.errors import shown
from fgr_jax.output import failure_of

_UNBOUNDED = 10_000  # columns of an output that is no terminal
_COLUMN_FRAME = 3  # columns of a table's border and padding


class Bar:
    """A progress bar."""

    def __init__(self, drawn: progress.Progress, task: progress.TaskID):
        self._drawn, self._task = drawn, task

    def update(self, done: int, note: str = "") -> None:
        """Sets the number of finished steps, and the note after the bar."""
        self._drawn.update(self._task, completed=done, note=shown(note))


class Terminal:
    """Writes lines, bars and tables, or nothing with `quiet=True`.

    All text is data: nothing in it is markup, as it would be in a `str` that is given to rich, and each
    text stays in its line or cell.
    """

    def __init__(self, *, quiet: bool = False):
        self._out = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bars = 0

    def line(self, text: str) -> None:
        """Writes a line."""
        self._console().print(Text(shown(text)))

    def warn(self, text: str) -> None:
        """Writes a warning, in one line."""
        self._console().print(Text(f"warning: {shown(text)}", "yellow"))

    def table(self, title: str, rows: list[tuple[str, ...]], header: tuple[str, ...]) -> None:
        """Writes a table, its first column aligned to the left and the others to the right.

        Where a terminal is too narrow for the other columns, each cell gets a line of its own.
        """
        title, header = shown(title), _shown_cells(header)
        rows = [_shown_cells(row) for row in rows]
        console = self._console()
        if not (console.is_terminal or "COLUMNS" in os.environ):
            console.width = _UNBOUNDED
        widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
        if console.width < sum(widths[1:]) + min(widths[0], 12) + _COLUMN_FRAME * len(widths) + 1:
            self._list(console, title, rows, header)
            return
        drawn = table.Table(title=Text(title, "table.title"), title_justify="left")
        for index, name in enumerate(header):
            justify, overflow = ("left", "fold") if index == 0 else ("right", "ellipsis")
            drawn.add_column(Text(name), justify=justify, overflow=overflow, no_wrap=index > 0)  # type: ignore[arg-type]
        for row in rows:
            drawn.add_row(*map(Text, row))
        console.print(drawn, soft_wrap=False)

    def _list(
        self,
        console: Console,
        title: str,
        rows: Sequence[tuple[str, ...]],
        header: tuple[str, ...],
    ) -> None:
        console.print(Text(title, "table.title"))
        for first, *others in rows:
            console.print(Text(first))
            for name, cell in zip(header[1:], others, strict=True):
                console.print(Text(f"  {name} {cell}"))

    def _console(self) -> Console:
        """Returns standard output, unless it is lost, or on a terminal that also shows a bar."""
        overwritten = self._bars and self._out.is_terminal and self._err.is_terminal
        return self._err if overwritten or failure_of("stdout") else self._out

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
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            _RateColumn(unit, per),
            progress.TextColumn("{task.fields[note]}", markup=False),
            progress.TimeRemainingColumn(elapsed_when_finished=True),
            console=self._err,
            transient=True,
            disable=not self._err.is_terminal,
        )
        task = drawn.add_task(shown(what), total=total, completed=start, note="")
        self._bars += 1
        try:
            with drawn:
                yield Bar(drawn, task)
        finally:
            self._bars -= 1


def _shown_cells(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(shown, cells))


class _RateColumn(progress.ProgressColumn):
    def __init__(self, unit: str, per: int):
        super().__init__()
        self._unit, self._per = unit, per

    def render(self, task: progress.Task) -> str:
        if not task.speed:
            return f"- {self._unit}/s"
        return f"{task.speed * self._per:.1f} {self._unit}/s"

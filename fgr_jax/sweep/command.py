"""The runs of a sweep, one after the other, and its table and figure."""

import dataclasses
import itertools
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from fgr_jax import cli, signals
from fgr_jax.errors import UserError
from fgr_jax.files.atomic import atomic_write
from fgr_jax.files.local import local_path
from fgr_jax.sweep import figures, tables
from fgr_jax.sweep.plan import Row, Sweep, load
from fgr_jax.sweep.results import LOG, Choice, Line, Result, result
from fgr_jax.terminal import Terminal

_FIGURE = "figure.png"
_STOPPED = tuple(128 + number for number in signals.STOPPING)


def sweep(own: flags.FlagValues, argv: Sequence[str], usage: str) -> int:
    """Runs the sweep that the flags of the command name.

    Args:
      own: the flags.
      argv: the command line, for the table.
      usage: of the command.

    Returns:
      The exit status: 128 + n if signal n stopped the sweep.

    Raises:
      UserError: the sweep or a config is invalid, or a run failed.
    """
    plan = load(local_path(own.sweep, "--sweep"))
    config = cli.config_file(own) or plan.config
    for_all = cli.overrides(own)
    if own.folds:
        plan = _with_folds(plan, own.folds, seeds=own.seeds)
    plan = _overridden(plan, cli.given_fields(own))
    seeds = own.seeds or plan.seeds
    search = plan.search
    tried = [search.overrides(value) for value in search.values] if search else [{}]
    for row, overrides in itertools.product(plan.rows, tried):
        # Mistakes are reported before the first run, not after an hour.
        arguments = _arguments(config, row.with_overrides(overrides), 0, for_all)
        cli.parse(["sweep", *arguments], usage, flags.FlagValues())
    default = Path("runs") / Path(own.sweep).stem
    workdir = local_path(own.workdir or str(default), "--workdir")
    command = shlex.join(["python", "-m", "fgr_jax.sweep", *argv[1:]])
    runner = _Runner(
        plan,
        config,
        for_all,
        workdir,
        command,
        Terminal(),
        with_paper=Path(config) == Path(plan.config)
        and not plan.folds
        and any(row.paper or row.published for row in plan.rows),
        searched={row.name: [] for row in plan.rows},
        found={row.name: [] for row in plan.rows},
    )
    return _run_all(runner, seeds)


@dataclasses.dataclass
class _Runner:
    """Trains runs one after the other, and keeps their results."""

    sweep: Sweep
    config: str
    for_all: list[str]
    workdir: Path
    command: str
    terminal: Terminal
    with_paper: bool
    searched: dict[str, list[Result]]  # for each row, with the values of the search
    found: dict[str, list[Result]]  # for each row, with seeds 0, 1, ... or of its folds

    def run(
        self, row: Row, folder: str, seed: int, overrides: Mapping[str, object], fold: str = ""
    ) -> Result:
        """Trains a run of `row` in its folder `folder`, or resumes it; `fold` is what it is tested on.

        Raises:
          _Stopped: a signal stopped it.
        """
        workdir = self.workdir / row.folder / folder
        overrides = {**overrides, "data.fold": fold} if fold else overrides
        arguments = _arguments(self.config, row.with_overrides(overrides), seed, self.for_all)
        status, stopped_by = _run(arguments, workdir)
        if stopped_by is not None:
            raise _StoppedError(f"{row.name}, {_in_words(folder)}", stopped_by)
        each = result(seed, workdir, status, fold)
        shown = each.failure or f"{each.top1:.1%}"
        self.terminal.line(f"{row.name}, {_in_words(folder)}: {shown}")
        return each

    def lines(self) -> list[Line]:
        """Returns the rows of the table so far."""
        search = self.sweep.search
        return [
            Line(
                row,
                tuple(self.found[row.name]),
                Choice(search, tuple(self.searched[row.name])) if search else None,
            )
            for row in self.sweep.rows
        ]

    def write(self) -> None:
        """Writes the files of the sweep."""
        _write(self.sweep, self.lines(), self.workdir, self.command, self.with_paper)


class _StoppedError(Exception):
    """A signal stopped a run: its name, and the signal."""


def _run_all(runner: _Runner, seeds: int) -> int:
    sweep, terminal = runner.sweep, runner.terminal
    # All rows with one value or seed before the next, so that the rows can be compared at any time.
    search = sweep.search
    searches = [(row, value) for value in search.values for row in sweep.rows] if search else []
    runs = [(f"seed-{seed}", seed, "") for seed in range(seeds)]
    if sweep.folds:
        numbers = range(1, sweep.folds + 1)
        runs = [(f"fold-{n}-of-{sweep.folds}", 0, f"{n}/{sweep.folds}") for n in numbers]
    order = [(row, *each) for each in runs for row in sweep.rows]
    try:
        with terminal.bar("sweeping", len(searches) + len(order), unit="runs", per=1) as bar:
            for done, (row, value) in enumerate(searches):
                assert search is not None
                name = f"{search.field.rpartition('.')[2]}-{value}"
                bar.update(done, f"{row.name}, {name}")
                each = runner.run(row, name, 0, search.overrides(value))
                runner.searched[row.name].append(each)
                runner.write()
            chosen = {line.row.name: line.chosen for line in runner.lines()}
            for done, (row, name, seed, fold) in enumerate(order, start=len(searches)):
                bar.update(done, f"{row.name}, {_in_words(name)}")
                each = runner.run(row, name, seed, chosen[row.name], fold)
                runner.found[row.name].append(each)
                runner.write()
    except _StoppedError as stopped:
        name, number = stopped.args
        terminal.line(f"stopped in {name}; the same command resumes it")
        return 128 + number
    lines, table = runner.lines(), tables.columns(sweep, runner.with_paper)
    rows = [tables.cells(line, lines, table) for line in lines]
    terminal.table(sweep.title, rows, header=tuple(table))
    terminal.line(f"Files in {runner.workdir}: results.md, results.csv, {_FIGURE}, and every run")
    failed = sum(len(line.failures) for line in lines)
    if failed:
        raise UserError(
            f"{failed} of {len(searches) + len(order)} runs failed; results.md says why, and the same "
            "command tries them again"
        )
    return 0


def _with_folds(sweep: Sweep, folds: int, *, seeds: int | None) -> Sweep:
    """Returns the sweep with runs on folds in place of those with several seeds."""
    if seeds:
        raise UserError(
            f"--folds={folds}: each fold is a run with seed 0; leave out --seeds={seeds}"
        )
    if sweep.search:
        raise UserError(
            f"--folds={folds}: this sweep chooses {sweep.search.field} on a fold of the training images "
            "that its rows would be tested on; name another sweep"
        )
    return dataclasses.replace(sweep, folds=folds)


def _overridden(sweep: Sweep, given: Mapping[str, object]) -> Sweep:
    """Returns the sweep without the rows' own values of the fields that are given for all runs.

    Raises:
      UserError: the rows differ in a given field, or the sweep sets it in each run.
    """
    of_the_sweep = {"seed"}
    if sweep.search:
        of_the_sweep |= sweep.search.overrides("").keys()
    elif sweep.folds:
        of_the_sweep.add("data.fold")
    for name, value in given.items():
        if name in of_the_sweep:
            raise UserError(
                f"--config.{name}={value}: this sweep has values of its own for it; leave it out"
            )
        values = [row.overrides.get(name) for row in sweep.rows]
        if any(each != values[0] for each in values):
            raise UserError(
                f"--config.{name}={value}: the rows of this sweep differ in it; leave it out"
            )
    rows = [
        dataclasses.replace(
            row, overrides={name: each for name, each in row.overrides.items() if name not in given}
        )
        for row in sweep.rows
    ]
    return dataclasses.replace(sweep, rows=rows)


def _in_words(folder: str) -> str:
    """Returns the name of a run's folder in words: "seed 0", "fold 1 of 5"."""
    return folder.replace("-of-", " of ").replace("-", " ", 1)


def _arguments(config: str, row: Row, seed: int, for_all: list[str]) -> list[str]:
    own = [f"--config.{name}={value}" for name, value in row.overrides.items()]
    return [f"--config={config}", *for_all, *own, f"--config.seed={seed}"]


def _run(arguments: list[str], workdir: Path) -> tuple[int, signal.Signals | None]:
    """Starts or resumes one run, and forwards the signals of this process to it.

    Returns:
      The exit status, and the signal that stopped the run.
    """
    process: subprocess.Popen | None = None

    def forward(number: signal.Signals) -> None:
        if process:  # which writes to its log, not to our broken pipe
            process.send_signal(signal.SIGTERM if number == signal.SIGPIPE else number)

    workdir.mkdir(parents=True, exist_ok=True)
    with (
        (workdir / LOG).open("ab") as log,
        signals.deferred(forward, ends_at_second=False) as deferral,
    ):
        process = subprocess.Popen(
            [sys.executable, "-m", "fgr_jax.main", *arguments, f"--workdir={workdir}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to the sweep alone, which forwards it
        )
        if deferral.requested:
            forward(deferral.requested)
        status = process.wait()
    if deferral.requested is None and status in _STOPPED:  # the run alone was stopped
        return status, signal.Signals(status - 128)
    return status, deferral.requested


def _write(
    sweep: Sweep, lines: Sequence[Line], workdir: Path, command: str, with_paper: bool
) -> None:
    figure = figures.draw(sweep, lines, with_paper=with_paper)
    page = tables.as_markdown(
        sweep, lines, command=command, with_paper=with_paper, figure=_FIGURE if figure else ""
    )
    contents = {"results.md": page.encode(), "results.csv": tables.as_csv(lines).encode()}
    if figure:
        contents[_FIGURE] = figure
    for name, content in contents.items():
        with atomic_write(workdir / name) as unfinished:
            unfinished.write_bytes(content)

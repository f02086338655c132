"""Trains a network, evaluates it and writes its report.

    python -m fgr_jax.main --config=configs/quickstart.py [--workdir=DIR] [--config.FIELD=VALUE ...]

The same command resumes a run that was stopped. The results are in DIR, by default in
runs/<name of the config>.

Several processes train one network, each with its own devices, when all are started with
--distributed (on Cloud TPU VMs and under Slurm), or with --coordinator=HOST:PORT --process_count=N
--process_id=I. They wait --join_timeout seconds for each other. DIR must be a folder that all of them
share, or gs://BUCKET/FOLDER.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from fgr_jax.config import LOCATIONS, Config, flat
from fgr_jax.errors import UserError

if TYPE_CHECKING:
    from fgr_jax.runs.workdir import Workdir
    from fgr_jax.terminal import Terminal
    from fgr_jax.train.loop import Outcome


def main(argv: Sequence[str]) -> int:
    """Trains, prints the summary and writes the report.

    Returns:
      The exit status: 0 if the run is finished, 128 + n if signal n stopped it.
    """
    own_flags = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "where the results go", flag_values=own_flags)
    cli.define_job_flags(own_flags)
    invocation = cli.parse(argv, __doc__ or "", own_flags)
    return _run(invocation, own_flags)


def _run(invocation: cli.Invocation, own_flags: flags.FlagValues) -> int:
    # These imports take a second, which --help and a mistake in the flags do without.
    import jax

    from fgr_jax import compilation, distributed, signals
    from fgr_jax.data.prepare.prepared import NotPreparedError
    from fgr_jax.runs.summary import print_summary
    from fgr_jax.runs.workdir import Workdir
    from fgr_jax.terminal import Terminal
    from fgr_jax.train.loop import train

    config = invocation.config
    compilation.set_up(config)
    cli.join_job(own_flags, saves=True)
    workdir = Workdir.open(own_flags.workdir or Path("runs") / invocation.config_path.stem)
    terminal = Terminal(quiet=jax.process_index() > 0)
    try:
        outcome = train(config, workdir, terminal)
    except NotPreparedError as error:
        prepare = shlex.join(["python", "-m", "fgr_jax.prepare", *invocation.config_arguments])
        raise UserError(f"{error}: run {prepare}") from error
    if outcome.interrupted_by is not None:
        terminal.line(
            f"stopped after step {outcome.step:,} of {outcome.total_steps:,} and saved; the same "
            "command resumes it"
        )
        distributed.leave()
        return 128 + outcome.interrupted_by
    try:
        distributed.once_for_all(
            lambda: print_summary(workdir, outcome.class_count, outcome.license, terminal)
        )
        if config.runtime.report:
            _report(config, workdir, outcome, terminal)
    except signals.Stopped as stopped:
        terminal.line(f"{stopped}; the run is finished and saved: the same command ends its report")
        return 128 + stopped.number
    distributed.leave()
    return 0


def _report(config: Config, workdir: "Workdir", outcome: "Outcome", terminal: "Terminal") -> None:
    """Writes the report of a finished run, unless it has been written before."""
    from fgr_jax import distributed
    from fgr_jax.distributed import chosen, data_mesh
    from fgr_jax.inference.saved_run import open_run
    from fgr_jax.report.page import write_report
    from fgr_jax.runs.workdir import REPORT, Workdir

    is_there = outcome.first_step == outcome.step and (workdir.local / REPORT).exists()
    if distributed.agreed_integer(is_there):
        return
    # Opened again: the other processes have no copy yet of a folder in a bucket.
    here = {name: value for name, value in flat(config).items() if name in LOCATIONS}
    run = open_run(Workdir.open(workdir.name), here)
    try:
        page = write_report(run, None, data_mesh(chosen(config.runtime.devices)), terminal)
    except UserError as error:
        raise UserError(
            f"the run is finished and saved, but has no report: {error}. The same command, or "
            f"python -m fgr_jax.report --workdir={workdir.name}, writes it"
        ) from error
    terminal.line(f"report    {page}")


if __name__ == "__main__":
    cli.run(main)

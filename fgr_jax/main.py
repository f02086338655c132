"""Trains and evaluates a network.

    python -m fgr_jax.main --config=configs/quickstart.py [--workdir=DIR] [--config.FIELD=VALUE ...]

Run the same command again to go on where it stopped. The results are in DIR, by default in
runs/<name of the config>.

Several processes train one network, each with its own devices, when all are started with
--distributed (on Cloud TPU VMs and under Slurm), or with --coordinator=HOST:PORT --process_count=N
--process_id=I. Those that do not come within --join_timeout seconds are given up. DIR must be a folder
that all of them see, or gs://BUCKET/FOLDER.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

import jax
from absl import flags

from fgr_jax import command_line, processes
from fgr_jax.devices import chosen, compute_deterministically, data_mesh
from fgr_jax.errors import UserError
from fgr_jax.input.source import NotPreparedError
from fgr_jax.recording.summary import print_summary
from fgr_jax.run_folder import RunFolder
from fgr_jax.terminal import Terminal
from fgr_jax.trained_run import open_run
from fgr_jax.training.run import train


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0 where the run is finished, 128 + n where signal n stopped it."""
    own_flags = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "where the results go", flag_values=own_flags)
    command_line.define_job_flags(own_flags)
    invocation = command_line.parse(argv, __doc__ or "", own_flags)
    ours = invocation.flags
    compute_deterministically(invocation.config.deterministic)
    command_line.join_job(ours)
    workdir = RunFolder.open(ours.workdir or Path("runs") / invocation.config_path.stem)
    terminal = Terminal(quiet=jax.process_index() > 0)
    try:
        outcome = train(invocation.config, workdir, terminal)
    except NotPreparedError as error:
        prepare = shlex.join(
            ["python", "-m", "fgr_jax.prepare", *command_line.config_arguments(argv)]
        )
        raise UserError(f"{error}: run {prepare}") from error
    if outcome.interrupted_by is not None and outcome.step < outcome.total_steps:
        terminal.line(
            f"stopped after step {outcome.step:,} of {outcome.total_steps:,} and saved; the same "
            "command goes on from there"
        )
        processes.leave()
        return 128 + outcome.interrupted_by
    if jax.process_index() == 0:
        print_summary(workdir, outcome.class_count, outcome.licence, terminal)
    config = invocation.config
    if config.runtime.report and outcome.step > outcome.first_step:
        from fgr_jax.reporting.report import write_report  # half a second, and only here

        mesh = data_mesh(chosen(config.runtime.devices))
        page = write_report(open_run(workdir, data_dir=config.data.data_dir), None, mesh, terminal)
        terminal.line(f"report    {page}")
    processes.leave()
    return 0


if __name__ == "__main__":
    command_line.run(main)

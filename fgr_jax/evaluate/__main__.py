"""Evaluates the network of a run on its test split.

    python -m fgr_jax.evaluate --workdir=runs/cub [--crops=five] [--step=N] [--batch_size=N]
                               [--data_dir=FOLDER]

--crops=five averages the softmax outputs of the four corners and the center. --step names a checkpoint;
without it the latest is taken, also of a run that is still going. --batch_size is over all devices, and
changes no result; without it, it is the run's. --data_dir is where data sets are prepared, if that is
another folder now.

The tables go to the terminal, and with the predictions for every picture into files in
DIR/evaluation/step-N-<one or five>/.

Several processes evaluate together when all are started with --distributed, or with
--coordinator=HOST:PORT --process_count=N --process_id=I, as in `python -m fgr_jax.main`.
"""

from collections.abc import Sequence

import jax
from absl import flags

from fgr_jax import cli, distributed
from fgr_jax.distributed import compute_deterministically, data_mesh
from fgr_jax.evaluate.evaluated_run import EvaluatedRun, evaluate_run, open_for_test
from fgr_jax.evaluate.files import FILES, write_files
from fgr_jax.evaluate.predictions import CROPS
from fgr_jax.evaluate.tables import print_tables
from fgr_jax.inference.saved_run import open_run
from fgr_jax.runs.folder import RunFolder
from fgr_jax.terminal import Terminal


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_enum("crops", "one", list(CROPS), "of each picture", flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("batch_size", None, "pictures", lower_bound=1, flag_values=own)
    flags.DEFINE_string("data_dir", None, "where data sets are", flag_values=own)
    cli.define_job_flags(own)
    cli.parse_flags(argv, __doc__ or "", own)
    run = open_run(RunFolder.open(own.workdir), data_dir=own.data_dir)
    compute_deterministically(run.config.deterministic)
    cli.join_job(own)
    terminal = Terminal(quiet=jax.process_index() > 0)
    mesh = data_mesh()
    opened = open_for_test(run, mesh, terminal, step=own.step)
    evaluated = evaluate_run(opened, mesh, terminal, crops=own.crops, batch_size=own.batch_size)
    distributed.once_for_all(lambda: _show_and_write(evaluated, terminal))
    distributed.leave()
    return 0


def _show_and_write(evaluated: EvaluatedRun | None, terminal: Terminal) -> None:
    """On process 0."""
    assert evaluated is not None
    run, step = evaluated.run, evaluated.trained.step
    evaluation = evaluated.evaluation
    alpha = run.config.diversification.alpha
    pictures = len(evaluation.predictions.names)
    title = f"step {step:,} of {run.workdir.name}, {pictures:,} test pictures"
    print_tables(evaluation, title, alpha, terminal)
    # A folder of its own: the run's other files, of which a bucket may have newer ones by now, stay.
    results = RunFolder.open(f"{run.workdir.name}/evaluation/step-{step}-{evaluated.crops}")
    about = {
        "workdir": run.workdir.name,
        "step": step,
        "total_steps": run.calendar.total_steps,
        "crops": evaluated.crops,
        "data": evaluated.source.identity,
        "alpha": alpha,
    }
    write_files(evaluation, about, results.local)
    results.publish()
    terminal.line(f"Files in {results.name}:")
    for name, what in FILES.items():
        terminal.line(f"  {name:<20} {what}")


if __name__ == "__main__":
    cli.run(main)

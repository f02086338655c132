"""Evaluates the network of a run on its test split.

    python -m fgr_jax.evaluate --workdir=runs/cub [--crops=five] [--step=N] [--batch_size=N]
                               [--foreign=FOLDER]
                               [--config.data.data_dir=FOLDER] [--config.data.folder=FOLDER]

--crops=five averages the softmax outputs of the four corners and the center. --step selects a
checkpoint; by default, the latest is evaluated, even if the run is still training. --batch_size is over
all devices and does not change the results; by default it is the run's, at most 16 for each device.

--foreign is a folder of images that belong to none of the classes: it is measured how well the
confidence in predictions tells them from the test images, and how many `predict --reject_below` rejects.

--config.data.data_dir is the folder in which data sets are prepared, and --config.data.folder or
--config.data.table are your own images, if they are no longer where the run had them; --data_dir is the
first of them, too. The fields of --config.runtime can be given as well.

The tables are printed and, together with the predictions for every image, written to
DIR/evaluation/step-N-<one or five>/.

Several processes evaluate together when all are started with --distributed, or with
--coordinator=HOST:PORT --process_count=N --process_id=I, as in `python -m fgr_jax.main`.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from fgr_jax.evaluate.crops import CROPS

if TYPE_CHECKING:
    from pathlib import Path

    from jax.sharding import Mesh

    from fgr_jax.evaluate.evaluated_run import EvaluatedRun
    from fgr_jax.terminal import Terminal


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_enum("crops", "one", list(CROPS), "of each image", flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("batch_size", None, "in images", lower_bound=1, flag_values=own)
    flags.DEFINE_string("foreign", None, "images of no class", flag_values=own)
    flags.DEFINE_string("data_dir", None, "where data sets are", flag_values=own)
    cli.define_job_flags(own)
    fields = cli.parse_fields(argv, __doc__ or "", own)
    if own.data_dir is not None:
        fields["data.data_dir"] = own.data_dir
    return _run(own, fields)


def _run(own: flags.FlagValues, fields: dict[str, Any]) -> int:
    # These imports take a second, which --help and a mistake in the flags do without.
    import jax

    from fgr_jax import compilation, distributed
    from fgr_jax.distributed import data_mesh
    from fgr_jax.evaluate.evaluated_run import evaluate_run, open_for_test
    from fgr_jax.evaluate.foreign import find_foreign
    from fgr_jax.inference.saved_run import open_run
    from fgr_jax.runs.workdir import Workdir
    from fgr_jax.terminal import Terminal

    foreign = None if own.foreign is None else (own.foreign, find_foreign(own.foreign))
    run = open_run(Workdir.open(own.workdir), fields)
    compilation.set_up(run.config)
    cli.join_job(own)
    terminal = Terminal(quiet=jax.process_index() > 0)
    mesh = data_mesh()
    opened = open_for_test(run, mesh, terminal, step=own.step)
    evaluated = evaluate_run(opened, mesh, terminal, crops=own.crops, batch_size=own.batch_size)
    distributed.once_for_all(
        lambda: _print_and_write(evaluated, own.crops, foreign, mesh, terminal)
    )
    distributed.leave()
    return 0


def _print_and_write(
    evaluated: "EvaluatedRun | None",
    crops: str,
    foreign: "tuple[str, list[Path]] | None",
    mesh: "Mesh",
    terminal: "Terminal",
) -> None:
    from fgr_jax.evaluate.files import FILES, write_files
    from fgr_jax.evaluate.foreign import measure_foreign
    from fgr_jax.evaluate.tables import print_foreign, print_tables
    from fgr_jax.models.network import applied_block, output_shapes

    assert evaluated is not None  # this is process 0
    run, step, evaluation = evaluated.run, evaluated.trained.step, evaluated.evaluation
    trained = evaluated.trained
    as_trained = trained.network.clone(pool=run.config.network.pool)
    maps = output_shapes(as_trained, trained.variables, run.config.data.crop).maps
    block = applied_block(run.config, maps)
    alpha = 1.0 if block is None else block.alpha
    images = len(evaluation.predictions.names)
    title = f"step {step:,} of {run.workdir.name}, {images:,} test image{'s' * (images != 1)}"
    print_tables(evaluation, title, alpha, terminal)
    of_foreign = None if foreign is None else measure_foreign(evaluated, *foreign, mesh, terminal)
    if of_foreign is not None:
        print_foreign(of_foreign, terminal)
    results = run.workdir.evaluation(step, crops)
    about = {
        "workdir": run.workdir.name,
        "step": step,
        "total_steps": run.calendar.total_steps,
        "crops": crops,
        "data": str(evaluated.source.identity),
        "alpha": alpha,
    }
    write_files(evaluation, about, results.local, of_foreign)
    results.publish()
    terminal.line(f"Files in {results.name}:")
    for name, content in FILES.items():
        terminal.line(f"  {name:<20} {content}")


if __name__ == "__main__":
    cli.run(main)

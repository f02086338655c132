"""Evaluates the network of a run on its test split.

    python -m fgr_jax.evaluate --workdir=runs/cub [--crops=five] [--step=N] [--batch_size=N]
                               [--data_dir=FOLDER]

--crops=five averages the softmax outputs of the four corners and the centre. --step names a checkpoint;
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

from fgr_jax import command_line, processes
from fgr_jax.config import Config
from fgr_jax.devices import compute_deterministically, data_mesh
from fgr_jax.errors import UserError
from fgr_jax.evaluating.evaluation import evaluate
from fgr_jax.evaluating.files import FILES, write_files
from fgr_jax.evaluating.predictions import CROPS, Predictions, predict_split
from fgr_jax.evaluating.tables import print_tables
from fgr_jax.input.source import ExampleSource, NotPreparedError, open_splits
from fgr_jax.reporting.terminal import Terminal
from fgr_jax.run_folder import RunFolder
from fgr_jax.trained_run import TrainedNetwork, TrainedRun, open_run, restore

_SHOWN = 20  # corrupt pictures


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_enum("crops", "one", list(CROPS), "of each picture", flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("batch_size", None, "pictures", lower_bound=1, flag_values=own)
    flags.DEFINE_string("data_dir", None, "where data sets are", flag_values=own)
    command_line.define_job_flags(own)
    command_line.parse_flags(argv, __doc__ or "", own)
    run = open_run(RunFolder.open(own.workdir))
    config = run.config
    if own.data_dir is not None:
        config.data.data_dir = own.data_dir
    compute_deterministically(config.deterministic)
    command_line.join_job(own)
    terminal = Terminal(quiet=jax.process_index() > 0)
    mesh = data_mesh()
    source = _open_test_split(run, config, terminal)
    trained = restore(run, own.step, mesh)
    _tell(run, trained, source, terminal)
    predictions = predict_split(
        config,
        trained,
        source,
        mesh,
        terminal,
        crops=CROPS[own.crops],
        batch_size=own.batch_size or config.batch_size,
    )
    processes.once_for_all(
        lambda: _show_and_write(run, trained, source, predictions, own.crops, terminal)
    )
    processes.leave()
    return 0


def _open_test_split(run: TrainedRun, config: Config, terminal: Terminal) -> ExampleSource:
    """The test split, of the data set that the run was trained on."""
    try:
        train, test = open_splits(config.data, terminal)
    except NotPreparedError as error:
        raise UserError(
            f"{error}: prepare it again (python -m fgr_jax.prepare, with the config of the run), or say "
            "where it is, --data_dir=FOLDER"
        ) from error
    if test.class_names != run.class_names:
        raise UserError(
            f"the data set {test.data_set} has other classes than the run in {run.workdir.name} was "
            f"trained on ({len(test.class_names)} there, {len(run.class_names)} in classes.json, or "
            "other names or another order): say where that data set is, --data_dir=FOLDER"
        )
    if train.identity != run.data:
        terminal.warn(
            f"the data set is no longer the one that the run was trained on (then {run.data}, now "
            f"{train.identity})"
        )
    return test


def _tell(
    run: TrainedRun, trained: TrainedNetwork, source: ExampleSource, terminal: Terminal
) -> None:
    total = run.calendar.total_steps
    if run.missing_fields:
        terminal.warn(
            "config.json is of an older version and lacks "
            f"{', '.join(run.missing_fields)}: they have the defaults of this version"
        )
    if run.is_training:
        terminal.line(
            f"the run is still going: this is its checkpoint of step {trained.step:,} of {total:,}"
        )
    elif trained.step < total:
        terminal.line(
            f"this is the checkpoint of step {trained.step:,} of {total:,}, not of the last"
        )
    terminal.line(
        f"data      {source.data_set}: {len(source):,} pictures of {source.split}, "
        f"{len(source.class_names)} classes, on {jax.device_count()} × {jax.devices()[0].device_kind}"
    )


def _show_and_write(
    run: TrainedRun,
    trained: TrainedNetwork,
    source: ExampleSource,
    predictions: Predictions | None,
    crops: str,
    terminal: Terminal,
) -> None:
    """On process 0."""
    assert predictions is not None
    _see_to_corrupt_pictures(predictions, source, run.config, terminal)
    evaluation = evaluate(predictions, run.class_names)
    title = f"step {trained.step:,} of {run.workdir.name}, {len(predictions.names):,} test pictures"
    print_tables(evaluation, title, run.config.diversification.alpha, terminal)
    # A folder of its own: the run's other files, of which a bucket may have newer ones by now, stay.
    results = RunFolder.open(f"{run.workdir.name}/evaluation/step-{trained.step}-{crops}")
    about = {
        "workdir": run.workdir.name,
        "step": trained.step,
        "total_steps": run.calendar.total_steps,
        "crops": crops,
        "data": source.identity,
        "alpha": run.config.diversification.alpha,
    }
    write_files(evaluation, about, results.local)
    results.publish()
    terminal.line(f"Files in {results.name}:")
    for name, what in FILES.items():
        terminal.line(f"  {name:<20} {what}")


def _see_to_corrupt_pictures(
    predictions: Predictions, source: ExampleSource, config: Config, terminal: Terminal
) -> None:
    """Does as `data.corrupt_images` says."""
    corrupt = predictions.corrupt
    if not corrupt:
        return
    named = ", ".join(corrupt[:_SHOWN])
    named += f" and {len(corrupt) - _SHOWN:,} more" if len(corrupt) > _SHOWN else ""
    where = f"data set {source.data_set}, split {source.split}: {named}"
    if config.data.corrupt_images == "stop":
        raise UserError(
            f"{where}; replace the files and prepare the data set again (the run has "
            "data.corrupt_images=stop)"
        )
    if not predictions.names:
        raise UserError(f"{where}; no picture is left to evaluate: prepare the data set again")
    terminal.warn(f"{where}; left out")


if __name__ == "__main__":
    command_line.run(main)

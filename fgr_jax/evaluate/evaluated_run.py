"""A trained run on its test split: the network at a checkpoint, the pictures, and what came out."""

import dataclasses

from jax.sharding import Mesh

from fgr_jax.data.source import ExampleSource, NotPreparedError, open_splits
from fgr_jax.distributed import once_for_all
from fgr_jax.errors import UserError
from fgr_jax.evaluate.evaluation import Evaluation, evaluate
from fgr_jax.evaluate.predictions import CROPS, Predictions, predict_split
from fgr_jax.inference.saved_run import TrainedNetwork, TrainedRun, restore
from fgr_jax.terminal import Terminal

_SHOWN = 20  # corrupt pictures


@dataclasses.dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run's network at a checkpoint, and what it is to be tested on."""

    run: TrainedRun
    trained: TrainedNetwork
    source: ExampleSource
    state: str  # which checkpoint it is; empty: the last of a finished run
    warnings: list[str]  # what has changed since it was trained


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluatedRun(OpenedRun):
    """What the network made of it."""

    crops: str  # of `CROPS`
    evaluation: Evaluation


def open_for_test(
    run: TrainedRun, mesh: Mesh, terminal: Terminal, *, step: int | None = None
) -> OpenedRun:
    """Opens the test split and restores the network.

    Args:
      run: as it was opened.
      mesh: the devices.
      terminal: is told what is to be evaluated.
      step: of the checkpoint; None: the latest.

    Raises:
      UserError: the data set or the checkpoint is not there, or is another's.
    """
    train, test = _open_splits(run, terminal)
    trained = restore(run, step, mesh)
    warnings = []
    if train.identity != run.data:
        warnings.append(
            f"the data set is no longer the one that the run was trained on (then {run.data}, now "
            f"{train.identity})"
        )
    if run.missing_fields:
        warnings.append(
            "config.json is of an older version and lacks "
            f"{', '.join(run.missing_fields)}: they have the defaults of this version"
        )
    for warning in warnings:
        terminal.warn(warning)
    state = _state(run, trained.step)
    if state:
        terminal.line(f"{run.workdir.name}: {state}")
    return OpenedRun(run, trained, test, state, warnings)


def evaluate_run(
    opened: OpenedRun, mesh: Mesh, terminal: Terminal, *, crops: str, batch_size: int | None = None
) -> EvaluatedRun | None:
    """Runs the network over the test split; process 0 gets what came out, the others None.

    Args:
      opened: what, and on what.
      mesh: the devices.
      terminal: shows how far it is.
      crops: a name in `CROPS`.
      batch_size: over all devices; None: the run's.

    Raises:
      UserError: a picture is corrupt and the run's `data.corrupt_images` is "stop".
    """
    run, source = opened.run, opened.source
    terminal.line(
        f"evaluating {run.workdir.name} on {source.data_set}: {len(source):,} pictures of "
        f"{source.split}, {len(source.class_names)} classes, on {mesh.size} × "
        f"{mesh.devices.flat[0].device_kind}"
    )
    predictions = predict_split(
        run.config,
        opened.trained,
        source,
        mesh,
        terminal,
        crops=CROPS[crops],
        batch_size=batch_size or run.config.batch_size,
    )

    def measured() -> EvaluatedRun:
        assert predictions is not None  # on process 0
        _see_to_corrupt_pictures(predictions, source, run, terminal)
        evaluation = evaluate(predictions, source.class_names)
        return EvaluatedRun(
            run, opened.trained, source, opened.state, opened.warnings, crops, evaluation
        )

    return once_for_all(measured)


def _open_splits(run: TrainedRun, terminal: Terminal) -> tuple[ExampleSource, ExampleSource]:
    """(train, test) of the data set that the run was trained on."""
    try:
        train, test = open_splits(run.config.data, terminal)
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
    return train, test


def _state(run: TrainedRun, step: int) -> str:
    """Which checkpoint of `run` that of `step` is, where it is not the last."""
    total = run.calendar.total_steps
    if step == total:
        return ""
    if run.is_training:
        return f"the run is still going: this is its checkpoint of step {step:,} of {total:,}"
    return f"this is the checkpoint of step {step:,} of {total:,}, not of the last"


def _see_to_corrupt_pictures(
    predictions: Predictions, source: ExampleSource, run: TrainedRun, terminal: Terminal
) -> None:
    """Does as `data.corrupt_images` says."""
    corrupt = predictions.corrupt
    if not corrupt:
        return
    named = ", ".join(corrupt[:_SHOWN])
    named += f" and {len(corrupt) - _SHOWN:,} more" if len(corrupt) > _SHOWN else ""
    where = f"data set {source.data_set}, split {source.split}: {named}"
    if run.config.data.corrupt_images == "stop":
        raise UserError(
            f"{where}; replace the files and prepare the data set again (the run has "
            "data.corrupt_images=stop)"
        )
    if not predictions.names:
        raise UserError(f"{where}; no picture is left to evaluate: prepare the data set again")
    terminal.warn(f"{where}; left out")

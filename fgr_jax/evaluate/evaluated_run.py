"""A trained run on its test split: the network at a checkpoint, the data, and the results."""

import contextlib
import dataclasses
from collections.abc import Iterator

from jax.sharding import Mesh

from fgr_jax.data.prepare.prepared import NotPreparedError
from fgr_jax.data.source import ExampleSource, completed, open_splits
from fgr_jax.distributed import once_for_all
from fgr_jax.errors import UserError
from fgr_jax.evaluate.crops import CROPS
from fgr_jax.evaluate.evaluation import Evaluation, evaluate
from fgr_jax.evaluate.predictions import Predictions, predict_split
from fgr_jax.inference.forward import IMAGES_PER_DEVICE
from fgr_jax.inference.saved_run import TrainedNetwork, TrainedRun, restore
from fgr_jax.runs.workdir import CLASSES, CONFIG
from fgr_jax.terminal import Terminal

_LISTED = 20  # corrupt images


@dataclasses.dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run's network at a checkpoint, and the split to test it on."""

    run: TrainedRun
    trained: TrainedNetwork
    source: ExampleSource
    # States that this is not the last checkpoint, or that the data set has changed.
    notices: list[str]


@dataclasses.dataclass(frozen=True, slots=True)
class EvaluatedRun(OpenedRun):
    """An opened run and its results."""

    evaluation: Evaluation


def open_for_test(
    run: TrainedRun, mesh: Mesh, terminal: Terminal, *, step: int | None = None
) -> OpenedRun:
    """Opens the test split and restores the network at `step`; None: at its latest checkpoint.

    Raises:
      UserError: the data set or the checkpoint does not exist, or belongs to another run.
    """
    train, test = _open_splits(run, terminal)
    trained = restore(run, step, mesh)
    notices = []
    then = completed(run.data, train.identity, run.config.data, terminal)
    if not then.is_same_data(train.identity):
        before, now = then.compared(train.identity)
        notices.append(
            f"the data set is no longer the one that the run was trained on (then {before}, now {now})"
        )
        terminal.warn(notices[0])
    if run.missing_fields:
        terminal.line(
            f"{CONFIG} is of an older version and lacks {', '.join(run.missing_fields)}: they have the "
            "defaults of this version"
        )
    state = _state(run, trained.step)
    if state:
        notices.insert(0, state)
        terminal.line(f"{run.workdir.name}: {state}")
    return OpenedRun(run, trained, test, notices)


def evaluate_run(
    opened: OpenedRun, mesh: Mesh, terminal: Terminal, *, crops: str, batch_size: int | None = None
) -> EvaluatedRun | None:
    """Evaluates the network on the test split; process 0 gets the results, the others None.

    `crops` is a key of `CROPS`; `batch_size` is over all devices, by default the run's and at most 16
    images on each: runs on cached features have batches for which the whole network is too large.

    Raises:
      UserError: an image is corrupt and the run's `data.corrupt_images` is "stop".
    """
    run, source = opened.run, opened.source
    terminal.line(
        f"evaluating {run.workdir.name} on {source.data_set}: {len(source):,} images of "
        f"{source.split}, {len(source.class_names)} classes, on {mesh.size} × "
        f"{mesh.devices.flat[0].device_kind}"
    )
    views = CROPS[crops]
    size = batch_size or min(run.config.batch_size, IMAGES_PER_DEVICE * mesh.size)
    with _way_out():
        predictions = predict_split(
            run.config, opened.trained, source, mesh, terminal, crops=views, batch_size=size
        )

    def measured() -> EvaluatedRun:
        assert predictions is not None  # this is process 0
        _handle_corrupt_images(predictions, source, run, terminal)
        evaluation = evaluate(predictions, source.class_names)
        return EvaluatedRun(run, opened.trained, source, opened.notices, evaluation)

    return once_for_all(measured)


def _open_splits(run: TrainedRun, terminal: Terminal) -> tuple[ExampleSource, ExampleSource]:
    """Opens the train and test splits of the data set that the run was trained on."""
    with _way_out():
        train, test = open_splits(run.config.data, terminal, run.data)
    if test.class_names != run.class_names:
        flag = "folder" if run.data.is_folder else "data_dir"
        raise UserError(
            f"the data set {test.data_set} has other classes than the run in {run.workdir.name} was "
            f"trained on ({len(test.class_names)} there, {len(run.class_names)} in {CLASSES}, or "
            f"other names or another order): name the folder of the run's images with "
            f"--config.data.{flag}=FOLDER"
        )
    return train, test


@contextlib.contextmanager
def _way_out() -> Iterator[None]:
    """Adds the command to the error that the data set is not prepared, or damaged."""
    try:
        yield
    except NotPreparedError as error:
        raise UserError(
            f"{error}: run python -m fgr_jax.prepare with the config of the run, or name the folder in "
            "which it is prepared, --config.data.data_dir=FOLDER"
        ) from error


def _state(run: TrainedRun, step: int) -> str:
    """Describes the checkpoint of `step`, or returns "" for the last one of a finished run."""
    total = run.calendar.total_steps
    if step == total:
        return ""
    if run.is_training:
        return (
            f"the run is still being trained: this is its checkpoint of step {step:,} of {total:,}"
        )
    return f"this is the checkpoint of step {step:,} of {total:,}, not of the last"


def _handle_corrupt_images(
    predictions: Predictions, source: ExampleSource, run: TrainedRun, terminal: Terminal
) -> None:
    """Applies the run's `data.corrupt_images`."""
    corrupt = predictions.corrupt
    if not corrupt:
        return
    named = ", ".join(corrupt[:_LISTED])
    named += f" and {len(corrupt) - _LISTED:,} more" if len(corrupt) > _LISTED else ""
    where = f"data set {source.data_set}, split {source.split}: {named}"
    if run.config.data.corrupt_images == "stop":
        raise UserError(
            f"{where}; replace the files and prepare the data set again (the run has "
            "data.corrupt_images=stop)"
        )
    if not predictions.names:
        raise UserError(f"{where}; no image is left to evaluate: prepare the data set again")
    terminal.warn(f"{where}; left out")

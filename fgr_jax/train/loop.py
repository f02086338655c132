"""A training run, from top to bottom."""

import dataclasses
import functools
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from fgr_jax import distributed
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config, flat
from fgr_jax.data.pipeline import Share, WorkerError
from fgr_jax.data.prepare.used_splits import VALIDATION
from fgr_jax.data.source import ExampleSource, completed, open_sources
from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.models.heads.interface import check_training
from fgr_jax.models.network import Network, build_network
from fgr_jax.models.weights.pretrained import start_from
from fgr_jax.runs.checkpoints import Checkpoints, latest_step
from fgr_jax.runs.description import Description
from fgr_jax.runs.logs import is_evaluated, last_step
from fgr_jax.runs.provenance import provenance
from fgr_jax.runs.workdir import PROVENANCE, Workdir
from fgr_jax.terminal import Terminal
from fgr_jax.train.batches import open_batches
from fgr_jax.train.evaluation import evaluate
from fgr_jax.train.head_start import head_from_features
from fgr_jax.train.interruption import Interruption
from fgr_jax.train.introduction import introduction
from fgr_jax.train.objective import build_objective, needs_class_counts
from fgr_jax.train.optimizer import build_optimizer, learning_rate_schedule
from fgr_jax.train.recorder import Recorder
from fgr_jax.train.step import Steps, TrainState, build_steps


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """The steps that a run took, and the signal that stopped it, if any."""

    first_step: int
    step: int
    total_steps: int
    class_count: int
    license: str
    interrupted_by: signal.Signals | None = None


def train(config: Config, workdir: Workdir, terminal: Terminal) -> Outcome:
    """Trains and evaluates the run `config` in `workdir`, from wherever it stopped.

    Raises:
      UserError: something that the user can fix.
    """
    # Devices, in a mesh with one axis.
    mesh = distributed.data_mesh(distributed.chosen(config.runtime.devices))
    parts = config.optimizer.accumulate
    if config.batch_size % (mesh.size * parts):
        times = f", times {parts} (--config.optimizer.accumulate)" if parts > 1 else ""
        raise UserError(
            f"--config.batch_size={config.batch_size}: must be a multiple of the number of devices, "
            f"which is {mesh.size} here{times}"
        )
    share = Share(config.batch_size, jax.process_index(), jax.process_count())
    to_devices = functools.partial(distributed.rows_to_devices, mesh)

    # Data.
    recorded = workdir.recorded()
    sources = open_sources(config.data, terminal, None if recorded is None else recorded.data)
    train_source, evaluated = sources.train, sources.evaluated
    class_names = train_source.class_names
    calendar = Calendar.of(config, len(train_source))

    # Network, objective, optimizer and the compiled steps.
    network = build_network(config, len(class_names))
    check_training(config, network.classifier)
    labels, class_counts = None, None
    if (
        config.data.balance
        or config.data.pairs
        or config.network.head_from_features
        or needs_class_counts(config.loss)
    ):
        labels = train_source.labels(terminal)
        class_counts = np.bincount(labels, minlength=len(class_names))
    objective = build_objective(config, calendar, mesh, class_counts)
    schedule = learning_rate_schedule(
        config, epoch=calendar.epoch, total_steps=calendar.total_steps
    )
    optimizer = build_optimizer(config, network, schedule)
    steps = build_steps(config, network, objective, optimizer, mesh)

    # State: 1. the workdir's own checkpoint; 2. pretrained weights; 3. a new network.
    run = Description(
        flat(config), train_source.identity, class_names, train_source.contents.in_short()
    )
    _check_workdir(workdir, run, recorded, config, terminal)
    step = distributed.agreed_integer(latest_step(workdir.checkpoints) or 0)
    planned, calendar = calendar, _ending_early(calendar, workdir, step)
    outcome = Outcome(step, step, calendar.total_steps, len(class_names), train_source.license)
    untested = _untested(workdir, _due_splits(evaluated, calendar, step), step)
    if step == calendar.total_steps and not untested:
        terminal.line(f"this run is finished: {step} of {calendar.total_steps} steps are taken")
        return outcome
    start = _start(config, network, steps, step, mesh)

    distributed.once_for_all(lambda: workdir.claim(run))
    checkpoints = Checkpoints(workdir.checkpoints)
    state = start.state
    if step:
        state = state.restored(checkpoints.restore(step, state.saved()))
    if jax.process_index() == 0:
        of_start = {} if step else {"weights": start.weights}
        json_lines.append(workdir.local / PROVENANCE, {"step": step, **of_start, **provenance()})
    for line in introduction(
        config,
        calendar,
        sources,
        network,
        state.variables,
        start.point,
        start.weights if config.pretrained else "",
        mesh.size,
    ):
        terminal.line(line)

    # Batches, of images or of cached features.
    batches, evaluation_batches, cached = open_batches(
        config,
        network,
        state.variables,
        (train_source, *evaluated.values()),
        labels,
        share,
        range(step, calendar.total_steps),
        mesh,
        terminal,
    )
    if config.network.head_from_features and step == 0:
        if start.with_head:
            terminal.line(f"head      that of {config.pretrained}, so nothing is computed for it")
        else:
            assert labels is not None
            variables = head_from_features(
                config, network, state.variables, train_source, labels, cached, mesh, terminal
            )
            state = state.starting_from(variables)

    # Loop.
    recorder = Recorder(config, calendar, workdir, checkpoints, terminal, step, len(class_names))

    batches_of = dict(zip(evaluated, evaluation_batches, strict=True))

    def test(step: int, state: TrainState) -> None:
        nonlocal calendar
        recorder.catch_up()
        while splits := _untested(workdir, _due_splits(evaluated, calendar, step), step):
            split = splits[0]
            tested = evaluate(
                steps,
                state,
                batches_of[split],
                evaluated[split],
                len(class_names),
                share,
                to_devices,
                interruption,
                terminal,
            )
            if tested is None:  # it was interrupted
                return
            recorder.evaluation(step, split, tested)
            calendar = _ending_early(calendar, workdir, step)

    with Interruption(terminal.warn) as interruption, checkpoints, recorder:
        with interruption.noting(WorkerError):
            if untested:
                test(step, state)
                recorder.settle(step)
                if calendar.due(step).checkpoint:
                    recorder.save(step, state, steps.is_finite(state))
            while step < calendar.total_steps and not interruption.is_due():
                batch = to_devices(next(batches))
                state, record = steps.train(state, batch)
                step += 1
                recorder.step(step, record.loss)

                due = calendar.due(step)
                if due.fingerprint:
                    recorder.fingerprint(step, steps.fingerprint(state, batch, record))
                if due.epoch_line:
                    recorder.epoch(step, state.epoch_totals)
                    state = state.replace(epoch_totals=steps.zeros())
                if due.evaluation:
                    test(step, state)
                recorder.settle(step)
                if due.checkpoint:
                    recorder.save(step, state, steps.is_finite(state))
        # After an interruption at any step.
        recorder.settle(step)
        recorder.save(step, state, steps.is_finite(state))
        recorder.publish()
    if step == calendar.total_steps < planned.total_steps:
        terminal.line(
            f"the training ended early, after {step:,} of {planned.total_steps:,} steps: the accuracy "
            f"on the validation split had not risen for {config.early_stopping}"
        )
    if interruption.failure:
        raise UserError(
            f"{interruption.failure}. Step {step:,} is saved, and the same command resumes the run"
        )
    return dataclasses.replace(
        outcome,
        step=step,
        total_steps=calendar.total_steps,
        interrupted_by=interruption.requested,
    )


class _Start(NamedTuple):
    state: TrainState  # only shapes and dtypes if it is to be restored from a checkpoint
    point: str  # what the run goes on from, in words
    weights: str  # which weights, with their license; without meaning for a run that is resumed
    with_head: bool  # whether the head is that of another run, or of this one


def _start(config: Config, network: Network, steps: Steps, step: int, mesh: Mesh) -> _Start:
    """Returns the state that a run begins or resumes with, `step` steps after its beginning."""
    if step:
        shapes = distributed.shapes_everywhere(mesh, jax.eval_shape(steps.init))
        return _Start(shapes, f"step {step:,} of this workdir", "", True)
    if not config.pretrained:
        return _Start(steps.init(), "random weights", "random weights", False)
    state = steps.init(head_only=True)
    variables, point, weights, with_head = start_from(
        config.pretrained, jax.device_get(state.variables), network.table, config.network
    )
    replicated = jax.device_put(variables, distributed.replicated(mesh))
    return _Start(state.starting_from(replicated), point, weights, with_head)


def _check_workdir(
    workdir: Workdir,
    run: Description,
    recorded: Description | None,
    config: Config,
    terminal: Terminal,
) -> None:
    """Raises a UserError if the workdir belongs to another run than `run`."""
    if recorded is not None:
        data = completed(recorded.data, run.data, config.data, terminal)
        recorded = dataclasses.replace(recorded, data=data)
    distributed.once_for_all(lambda: workdir.check(run, recorded))


def _ending_early(calendar: Calendar, workdir: Workdir, step: int) -> Calendar:
    """Returns the calendar of a run that has taken `step` steps, where it may end by early stopping."""
    if calendar.patience is None:
        return calendar
    last = distributed.agreed_integer(last_step(workdir.local, calendar, until=step))
    return calendar.ending_at(last)


def _due_splits(evaluated: Mapping[str, ExampleSource], calendar: Calendar, step: int) -> list[str]:
    """Returns the splits to evaluate on after `step`: beside a validation split, test comes last."""
    if step == 0 or not calendar.due(step).evaluation:
        return []
    return [
        split
        for split in evaluated
        if split == VALIDATION or VALIDATION not in evaluated or step == calendar.total_steps
    ]


def _untested(workdir: Workdir, splits: Sequence[str], step: int) -> list[str]:
    """Returns the splits on which a run that was stopped and saved at `step` is yet to be evaluated."""
    return [
        split
        for split in splits
        if distributed.agreed_integer(not is_evaluated(workdir.local, step, split))
    ]

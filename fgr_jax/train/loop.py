"""The training run, top to bottom."""

import dataclasses
import math
import signal
import time

import jax

from fgr_jax.calendar import Calendar
from fgr_jax.config import Config, flat
from fgr_jax.data.batch import Batch
from fgr_jax.data.pipeline import Share, training_batches
from fgr_jax.data.source import open_splits
from fgr_jax.distributed import (
    agreed_integer,
    batch_sharding,
    chosen,
    data_mesh,
    once_for_all,
    replicated,
)
from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.models.network import parameter_count
from fgr_jax.models.weights.pretrained import start_from
from fgr_jax.runs.checkpoints import Checkpoints, latest_step
from fgr_jax.runs.description import Description
from fgr_jax.runs.folder import PROVENANCE, RunFolder
from fgr_jax.runs.logs import FingerprintLog, MetricsLog
from fgr_jax.runs.provenance import provenance
from fgr_jax.terminal import Terminal
from fgr_jax.train.evaluation import averages, evaluate
from fgr_jax.train.loss_watch import LossWatch
from fgr_jax.train.optimizer import learning_rate_schedule, momentum_sgd
from fgr_jax.train.signals import Interruption
from fgr_jax.train.step import DeviceBatch, build_network, build_steps

# Within this share of its chance level, ln(k + 1), for an epoch, GCE's loss has taught nothing.
_CHANCE_TOLERANCE = 0.01


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went: from `first_step` to `step` of `total_steps`; ended by a signal, if by one."""

    first_step: int
    step: int
    total_steps: int
    class_count: int
    license: str
    interrupted_by: signal.Signals | None = None


def train(config: Config, workdir: RunFolder, terminal: Terminal) -> Outcome:
    """Trains and evaluates the run `config` in `workdir`, from wherever it stopped.

    Raises:
      UserError: something the person can put right.
    """
    # Devices, in a mesh of one axis.
    mesh = data_mesh(chosen(config.runtime.devices))
    if config.batch_size % mesh.size:
        raise UserError(
            f"--config.batch_size={config.batch_size}: must be a multiple of the number of devices, "
            f"which is {mesh.size} here"
        )
    share = Share(config.batch_size, jax.process_index(), jax.process_count())
    sharding = batch_sharding(mesh)

    def to_devices(batch: Batch) -> DeviceBatch:
        return {
            name: jax.make_array_from_process_local_data(sharding, rows)
            for name, rows in batch.items()
        }

    # Data.
    train_source, test_source = open_splits(config.data, terminal)
    class_names = train_source.class_names
    calendar = Calendar.of(config, len(train_source))

    # Network, optimizer and the compiled steps.
    network = build_network(config, len(class_names))
    schedule = learning_rate_schedule(
        config, epoch=calendar.epoch, total_steps=calendar.total_steps
    )
    optimizer = momentum_sgd(
        schedule,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
    )
    steps = build_steps(
        config,
        network,
        optimizer,
        gce_start_step=calendar.gce_start_step,
        gce_fade_steps=calendar.gce_fade_steps,
        mesh=mesh,
    )

    # State: 1. the workdir's own checkpoint; 2. pretrained weights; 3. a new network.
    run = Description(flat(config), train_source.identity, class_names)
    once_for_all(lambda: workdir.check(run))
    step = agreed_integer(latest_step(workdir.checkpoints) or 0)
    outcome = Outcome(step, step, calendar.total_steps, len(class_names), train_source.license)
    if step == calendar.total_steps:
        terminal.line(f"this run is finished: {step} of {calendar.total_steps} steps are taken")
        return outcome
    state = steps.init()
    start = "random weights"
    if step:
        start = f"step {step:,} of this workdir"
    elif config.pretrained:
        variables = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
        variables, start = start_from(config.pretrained, variables)
        state = state.replace(**jax.device_put(variables, replicated(mesh)))

    once_for_all(lambda: workdir.claim(run))
    checkpoints = Checkpoints(workdir.checkpoints)
    if step:
        state = checkpoints.restore(step, state)
    writes = jax.process_index() == 0
    if writes:
        json_lines.append(workdir.local / PROVENANCE, {"step": step, **provenance()})
    cells = network.map_size(config.data.crop)
    terminal.line(
        f"data      {train_source.data_set}: {len(train_source):,} training and "
        f"{len(test_source):,} test pictures, {len(class_names)} classes"
    )
    terminal.line(
        f"network   ResNet-{config.network.depth}, {parameter_count(state.params):,} parameters; "
        f"{config.data.crop}×{config.data.crop} pixels give maps of {cells}×{cells} cells"
    )
    terminal.line(f"start     {start}")
    terminal.line(
        f"training  {config.duration}, {calendar.total_steps:,} steps of {config.batch_size} "
        f"pictures, on {mesh.size} × {jax.devices()[0].device_kind}"
    )

    # Loop. Every line of metrics is on the disk before the checkpoint of its step.
    remaining = range(step, calendar.total_steps)
    batches = training_batches(
        train_source, config.data, config.runtime, share, seed=config.seed, steps=remaining
    )
    fingerprints = FingerprintLog(workdir.local, first_step=step, writes=writes)
    stopwatch = _Stopwatch()
    saved_step = step
    warned_of_chance = False
    with (
        checkpoints,
        MetricsLog(workdir.local, first_step=step, writes=writes) as log,
        Interruption(terminal.warn) as interruption,
        terminal.bar(
            "training", calendar.total_steps, start=step, unit="images", per=config.batch_size
        ) as bar,
    ):
        losses = LossWatch(
            bar, f"--config.optimizer.learning_rate={config.optimizer.learning_rate}"
        )
        while step < calendar.total_steps and not interruption.is_due(step):
            batch = to_devices(next(batches))
            state, record = steps.train(state, batch)
            step += 1
            losses.taken(step, record.loss)
            stopwatch.step_taken()

            due = calendar.due(step)
            if due.fingerprint:
                fingerprints.note(step, steps.fingerprint(state, batch, record))
            if not (due.epoch_line or due.evaluation or due.checkpoint):
                continue
            losses.catch_up()
            line = [f"epoch {float(step / calendar.epoch):.4g}", f"step {step:,}"]
            if due.epoch_line:
                rate = stopwatch.steps_per_second() * config.batch_size
                epoch_start = calendar.previous_epoch_line(step)
                pictures = (step - epoch_start) * config.batch_size
                results = averages(state.epoch_totals, expected=pictures)
                state = state.replace(epoch_totals=steps.zeros())
                log.metrics(step, "train", results)
                log.timings(step, {"images_per_second": rate})
                line += [_in_words("training", results), f"{rate:.1f} images/s"]
                if not warned_of_chance and calendar.is_all_gce(epoch_start):
                    warned_of_chance = _warn_of_chance(
                        results["loss"], config.loss.k, len(class_names), terminal
                    )
            test_top1 = None
            if due.evaluation:
                results = evaluate(config, steps, state, test_source, share, to_devices, terminal)
                log.metrics(step, "test", results)
                test_top1 = results["top1"]
                line.append(_in_words("test", results))
            if len(line) > 2:
                terminal.line("  ".join(line))
            if due.checkpoint:
                fingerprints.write_pending()
                losses.require_finite_weights(steps.is_finite(state), step)
                if writes:
                    workdir.publish()
                checkpoints.save(step, state, test_top1=test_top1)
                saved_step = step
            stopwatch.restart()
        if saved_step < step:  # interrupted, wherever that was
            losses.catch_up()
            fingerprints.write_pending()
            losses.require_finite_weights(steps.is_finite(state), step)
            if writes:
                workdir.publish()
            checkpoints.save(step, state, test_top1=None)
    if writes:
        workdir.publish()
    return dataclasses.replace(outcome, step=step, interrupted_by=interruption.requested)


def _in_words(split: str, results: dict[str, float | int]) -> str:
    skipped = f" ({results['skipped']} pictures skipped)" if results["skipped"] else ""
    return f"{split} loss {results['loss']:.3f}, top-1 {results['top1']:.1%}{skipped}"


def _warn_of_chance(loss: float, k: int, classes: int, terminal: Terminal) -> bool:
    """Says so where an epoch of GCE ended on its chance level (SEMANTICS: "needs features")."""
    chance = math.log(min(k, classes - 1) + 1)
    if abs(loss - chance) > _CHANCE_TOLERANCE * chance:
        return False
    terminal.warn(
        f"for an epoch the loss of GCE has been ln(k + 1) = {chance:.3f}, its chance level: the network "
        'tells nothing apart. Begin with cross-entropy (--config.loss.gce_start="3 epochs"), or start '
        "from weights that were trained on something (--config.pretrained)"
    )
    return True


class _Stopwatch:
    """Steps per second between two pauses. The first step, which compiles, does not count."""

    def __init__(self) -> None:
        self._steps = -1
        self._started = math.nan

    def step_taken(self) -> None:
        self._steps += 1
        if self._steps == 0:
            self._started = time.perf_counter()

    def steps_per_second(self) -> float:
        return self._steps / max(time.perf_counter() - self._started, 1e-9)

    def restart(self) -> None:
        self._steps = 0
        self._started = time.perf_counter()

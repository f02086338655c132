"""Records and displays the progress of a run."""

import contextlib
import dataclasses
import math
import time

import jax

from fgr_jax.calendar import Calendar
from fgr_jax.config import Config, has_validation
from fgr_jax.errors import DivergedError
from fgr_jax.runs.checkpoints import Checkpoints
from fgr_jax.runs.logs import FingerprintLog, MetricsLog, write_predictions
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal
from fgr_jax.train.evaluation import Results, Tested, averages
from fgr_jax.train.step import Totals, TrainState

# An epoch of GCE whose loss is within this share of its chance level, ln(k + 1), has learned nothing.
_CHANCE_TOLERANCE = 0.01


@dataclasses.dataclass
class Recorder:
    """The progress bar, logs and checkpoints of a run, as a context manager.

    Every line of metrics is on the disk before the checkpoint of its step, and nothing is saved until
    all losses so far and all weights are known to be finite. To keep the host from waiting for the
    devices, the loss of a step is read after the next step was dispatched.
    """

    config: Config
    calendar: Calendar
    workdir: Workdir
    checkpoints: Checkpoints
    terminal: Terminal
    first_step: int
    num_classes: int

    def __enter__(self) -> "Recorder":
        folder, first_step = self.workdir.local, self.first_step
        self._writes = jax.process_index() == 0
        self._stopwatch = _Stopwatch()
        self._pending: tuple[int, jax.Array] | None = None  # the last dispatched step, and its loss
        self._words: list[str] = []
        self._saved_step = first_step
        self._top1: dict[int, float] = {}  # of the step that was evaluated last
        # The chance level of GCE's loss; None after the warning, and where the loss has another one.
        negatives, loss = min(self.config.loss.k, self.num_classes - 1), self.config.loss
        is_other = loss.objective or loss.logit_adjustment or loss.class_weights
        self._chance = None if is_other else math.log(negatives + 1)
        self._fingerprints = FingerprintLog(folder, first_step=first_step, writes=self._writes)
        total, size = self.calendar.total_steps, self.config.batch_size
        bar = self.terminal.bar("training", total, start=first_step, unit="images", per=size)
        with contextlib.ExitStack() as stack:
            metrics = MetricsLog(folder, first_step=first_step, writes=self._writes)
            self._metrics = stack.enter_context(metrics)
            self._bar = stack.enter_context(bar)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def step(self, step: int, loss: jax.Array) -> None:
        """Records a step that was just dispatched, and reads the loss of the previous one.

        Raises:
          DivergedError: the loss is NaN or infinite.
        """
        self.catch_up()
        self._pending = step, loss
        self._stopwatch.step()

    def fingerprint(self, step: int, digests: dict[str, jax.Array]) -> None:
        """Records the digests of a step."""
        self._fingerprints.note(step, digests)

    def epoch(self, step: int, totals: Totals) -> None:
        """Writes the results of the training batches since the last epoch ended.

        Raises:
          UserError: a loss is NaN or infinite.
        """
        self.catch_up()
        rate = self._stopwatch.steps_per_second() * self.config.batch_size
        epoch_start = self.calendar.previous_epoch_line(step)
        results = averages(totals, expected=(step - epoch_start) * self.config.batch_size)
        self._metrics.metrics(step, "train", results)
        self._metrics.timings(step, {"images_per_second": rate})
        self._words += [_in_words("training", results), f"{rate:.1f} images/s"]
        if self.calendar.is_all_gce(epoch_start):
            self._warn_of_chance(results["loss"])

    def catch_up(self) -> None:
        """Waits for the last dispatched step and reads its loss.

        Raises:
          DivergedError: the loss is NaN or infinite.
        """
        if self._pending is None:
            return
        (step, loss), self._pending = self._pending, None
        value = float(jax.device_get(loss))
        if not math.isfinite(value):
            raise self._diverged(f"the loss became {value}", step)
        self._bar.update(step, f"loss {value:.3f}")

    def evaluation(self, step: int, split: str, tested: Tested) -> None:
        """Writes the results on a split, and predictions of test images in place of those of before.

        Checkpoints are rated by the accuracy on the validation split, or without one on the test split.
        """
        if self._writes and split == "test":
            write_predictions(self.workdir.local, tested.predictions)
        self._metrics.metrics(step, split, tested.results)
        if split == "validation" or not has_validation(self.config.data):
            self._top1 = {step: tested.results["top1"]}
        self._words.append(_in_words(split, tested.results))

    def settle(self, step: int) -> None:
        """Prints the results of a step, if any, in one line."""
        if self._words:
            epochs = f"epoch {float(step / self.calendar.epoch):.4g}"
            self.terminal.line("  ".join([epochs, f"step {step:,}", *self._words]))
            self._words = []
            self._stopwatch.restart()

    def save(self, step: int, state: TrainState, is_finite: jax.Array) -> None:
        """Starts saving the checkpoint of a step, or adds the accuracy if it is saved already.

        Args:
          step: the step of the checkpoint.
          state: the state of the run.
          is_finite: whether the state is finite. A finite loss does not imply this, since it is computed
            with the weights before the update.

        Raises:
          DivergedError: a loss or a weight is NaN or infinite.
          UserError: the checkpoint cannot be written.
        """
        top1 = self._top1.get(step)
        if self._saved_step == step:
            if top1 is not None:
                self.checkpoints.rate(step, top1)
            return
        self.catch_up()
        self._fingerprints.write_pending()
        if not jax.device_get(is_finite):
            raise self._diverged("the weights became infinite or NaN", step)
        self.publish()
        self.checkpoints.save(step, state.saved(), top1=top1)
        self._saved_step = step
        self._stopwatch.restart()

    def _diverged(self, what: str, step: int) -> DivergedError:
        """Returns the error for a step after which nothing must be saved."""
        return DivergedError(
            f"{what} at step {step}; the checkpoints from before are kept. Lower the learning rate "
            f"(--config.optimizer.learning_rate={self.config.optimizer.learning_rate}) or lengthen "
            "--config.optimizer.warmup, in another --workdir"
        )

    def publish(self) -> None:
        """Copies the small files of a workdir in a bucket there."""
        if self._writes:
            self.workdir.publish()

    def _warn_of_chance(self, loss: float | int) -> None:
        """Warns once if an epoch's loss of GCE is at its chance level, as it is without features."""
        chance = self._chance
        if chance is None or abs(loss - chance) > _CHANCE_TOLERANCE * chance:
            return
        self._chance = None
        self.terminal.warn(
            f"for an epoch the loss of GCE has been ln(k + 1) = {chance:.3f}, its chance level: the "
            "network does not distinguish classes. Begin with cross-entropy "
            '(--config.loss.gce_start="3 epochs"), or with pretrained weights (--config.pretrained)'
        )


def _in_words(split: str, results: Results) -> str:
    skipped = f" ({results['skipped']} images skipped)" if results["skipped"] else ""
    return f"{split} loss {results['loss']:.3f}, top-1 {results['top1']:.1%}{skipped}"


class _Stopwatch:
    """Measures steps per second between restarts, without the first step, which compiles."""

    def __init__(self) -> None:
        self._steps = -1
        self._started = math.nan

    def step(self) -> None:
        self._steps += 1
        if self._steps == 0:
            self._started = time.perf_counter()

    def steps_per_second(self) -> float:
        return self._steps / max(time.perf_counter() - self._started, 1e-9)

    def restart(self) -> None:
        self._steps = 0
        self._started = time.perf_counter()

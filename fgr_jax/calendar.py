"""The calendar of a run: every duration of its config, in steps."""

import dataclasses
import math
from collections.abc import Mapping
from fractions import Fraction

from fgr_jax import durations
from fgr_jax.config import AUTOMATIC, NEVER, Config


@dataclasses.dataclass(frozen=True, slots=True)
class Due:
    """What is due after a step."""

    epoch_line: bool
    evaluation: bool
    checkpoint: bool
    fingerprint: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Calendar:
    """The config's durations for a training set of a certain size. Steps are counted from 1."""

    epoch: Fraction  # steps in an epoch, n/b
    total_steps: int
    gce_start_step: int | None  # steps with cross-entropy before GCE; None: never GCE
    gce_fade_steps: int  # steps over which cross-entropy then turns into GCE
    evaluation_interval: Fraction
    checkpoint_interval: Fraction
    fingerprint_interval: Fraction | None  # None: never
    patience: Fraction | None  # steps without a higher accuracy that end the training; None: never

    @classmethod
    def of(cls, config: Config, examples: int) -> "Calendar":
        """Returns the calendar of `config` for epochs of `examples` examples."""
        epoch = Fraction(examples, config.batch_size)
        start, every = config.loss.gce_start, config.runtime.fingerprint_every
        patience = config.early_stopping
        total_steps = durations.whole_steps(config.duration, epoch)
        if config.loss.gce_fade == AUTOMATIC:
            # Without pretrained weights there are no features at first that GCE could build on.
            fade_steps = 0 if config.pretrained else math.ceil(total_steps / 2)
        else:
            fade_steps = durations.whole_steps(config.loss.gce_fade, epoch)
        return cls(
            epoch=epoch,
            total_steps=total_steps,
            gce_start_step=None if start == NEVER else durations.whole_steps(start, epoch),
            gce_fade_steps=fade_steps,
            evaluation_interval=durations.in_steps(config.evaluate_every, epoch),
            checkpoint_interval=durations.in_steps(config.checkpoint_every, epoch),
            fingerprint_interval=None if every == NEVER else durations.in_steps(every, epoch),
            patience=None if patience == NEVER else durations.in_steps(patience, epoch),
        )

    def ending_at(self, step: int) -> "Calendar":
        """Returns the calendar of the same run, except that `step` is its last one."""
        return dataclasses.replace(self, total_steps=step)

    def last_step(self, accuracies: Mapping[int, float]) -> int:
        """Returns the last step of a run, given its accuracies on the validation split by step.

        It is the first evaluated step by which the accuracy has not risen for the patience.
        """
        best, highest = 0, -math.inf
        for step in sorted(accuracies):
            if accuracies[step] > highest:
                best, highest = step, accuracies[step]
            # Both steps are rounded up, which makes the time between them up to a step shorter.
            elif self.patience is not None and step - best > self.patience - 1:
                return step
        return self.total_steps

    def due(self, step: int) -> Due:
        """Returns what is due after step `step`. After the last step, everything is due."""
        last = step == self.total_steps
        return Due(
            epoch_line=last or durations.is_due(step, self.epoch),
            evaluation=last or durations.is_due(step, self.evaluation_interval),
            checkpoint=last or durations.is_due(step, self.checkpoint_interval),
            fingerprint=self.fingerprint_interval is not None
            and (last or durations.is_due(step, self.fingerprint_interval)),
        )

    def previous_epoch_line(self, step: int) -> int:
        """Returns the last step before `step` that ended an epoch, or 0."""
        return math.ceil((step - 1) // self.epoch * self.epoch)

    def is_all_gce(self, first_step: int) -> bool:
        """Returns whether every step after step `first_step` trains with GCE alone."""
        start = self.gce_start_step
        return start is not None and first_step >= start + self.gce_fade_steps

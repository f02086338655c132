"""Reads the loss of every step, one step late, and stops the run when it is no number."""

import math

import jax

from fgr_jax.errors import UserError
from fgr_jax.terminal import Bar


class LossWatch:
    """The loss of a step is read once the next step is under way, so the devices never wait.

    Nothing may be saved before `catch_up` has returned: then every loss so far is known to be finite.
    """

    def __init__(self, bar: Bar, learning_rate_field: str):
        self._bar = bar
        self._learning_rate_field = learning_rate_field
        self._pending: tuple[int, jax.Array] | None = None

    def taken(self, step: int, loss: jax.Array) -> None:
        """Notes the loss of the step just started, and reads that of the one before.

        Raises:
          UserError: the loss of the step before is NaN or infinite.
        """
        self.catch_up()
        self._pending = (step, loss)

    def catch_up(self) -> None:
        """Waits for the step under way and reads its loss.

        Raises:
          UserError: it is NaN or infinite.
        """
        if self._pending is None:
            return
        step, loss = self._pending
        self._pending = None
        value = float(jax.device_get(loss))
        if not math.isfinite(value):
            raise self._diverged(f"the loss became {value}", step)
        self._bar.update(step, f"loss {value:.3f}")

    def require_finite_weights(self, is_finite: jax.Array, step: int) -> None:
        """To be called before saving: a finite loss is that of the weights before the update.

        Raises:
          UserError: the update of `step` left a weight or statistic that is no number.
        """
        if not jax.device_get(is_finite):
            raise self._diverged("the weights became infinite or NaN", step)

    def _diverged(self, what: str, step: int) -> UserError:
        return UserError(
            f"{what} at step {step}; the checkpoints from before are kept. Lower the learning rate "
            f"({self._learning_rate_field}) or lengthen --config.optimizer.warmup, in another --workdir"
        )

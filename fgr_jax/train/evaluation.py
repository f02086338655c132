"""Evaluation on a split: every example counts once, and the sums are divided at the end."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import numpy as np
import numpy.typing as npt

from fgr_jax.data.pipeline import Share, Source, evaluation_batch_count
from fgr_jax.per_class import confusion_matrix, per_class
from fgr_jax.terminal import Terminal
from fgr_jax.train.batches import HostBatch
from fgr_jax.train.interruption import Interruption
from fgr_jax.train.step import DeviceBatch, Steps, Totals, TrainState

Results = dict[str, float | int]


class Tested(NamedTuple):
    """The results on the N images of a split."""

    results: Results
    # Of each image in order: its label, −1 if it is corrupt, and the class with the highest score,
    # [N, 2].
    predictions: npt.NDArray[np.int32]


def evaluate(
    steps: Steps,
    state: TrainState,
    batches: Iterator[HostBatch],
    source: Source,
    num_classes: int,
    share: Share,
    to_devices: Callable[[HostBatch], DeviceBatch],
    interruption: Interruption,
    terminal: Terminal,
) -> Tested | None:
    """Computes loss, accuracies and predictions of `state` over all examples of `source`.

    Args:
      batches: the batches of `source`, again and again, from its first one on.

    Returns:
      The results, or None if it was interrupted before the last batch.
    """
    totals, predictions = steps.zeros(), []
    count = evaluation_batch_count(source, share)
    with terminal.bar("evaluating", count, unit="images", per=share.batch_size) as bar:
        for done, batch in enumerate(itertools.islice(batches, count), start=1):
            totals, of_batch = steps.test(state, to_devices(batch), totals)
            predictions.append(of_batch)
            bar.update(done)
            if done < count and interruption.is_due():
                return None
    whole = np.concatenate(jax.device_get(predictions))[: len(source)]
    labels, predicted = whole[whole[:, 0] >= 0].T
    classes = per_class(confusion_matrix(labels, predicted, num_classes))
    results = averages(totals, expected=len(source))
    return Tested({**results, "balanced_accuracy": classes.balanced_accuracy}, whole)


def averages(totals: Totals, *, expected: int) -> Results:
    """Divides sums by the number of examples: loss in nats, top-1 and top-5 in [0, 1].

    `expected` is the number of examples read; those missing from the sums were corrupt.
    """
    sums = jax.device_get(totals)
    count = max(int(sums.examples), 1)
    return {
        "loss": float(sums.loss) / count,
        "top1": int(sums.top1) / count,
        "top5": int(sums.top5) / count,
        "examples": int(sums.examples),
        "skipped": expected - int(sums.examples),
    }

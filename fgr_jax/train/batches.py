"""The batches that a run trains on and is evaluated on: of images, or of cached features."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from fgr_jax.config import Config
from fgr_jax.data import pipeline
from fgr_jax.data.pipeline import Share
from fgr_jax.data.source import ExampleSource
from fgr_jax.features import reading
from fgr_jax.features.opening import open_features
from fgr_jax.models.network import Network
from fgr_jax.terminal import Terminal

# A `fgr_jax.data.batch.Batch` or `fgr_jax.features.reading.FeatureBatch`.
HostBatch = Mapping[str, Any]


class Batches(NamedTuple):
    """The batches of a run.

    Attributes:
      training: those of the steps to take.
      evaluation: those of each other split, again and again.
      cached: the features of the training split; None: the batches are of images.
    """

    training: Iterator[HostBatch]
    evaluation: list[Iterator[HostBatch]]
    cached: reading.Features | None


def open_batches(
    config: Config,
    network: Network,
    variables: Any,
    sources: Sequence[ExampleSource],
    labels: npt.NDArray[np.integer] | None,
    share: Share,
    steps: range,
    mesh: Mesh,
    terminal: Terminal,
) -> Batches:
    """Returns the training batches of `steps`, and those of each other split.

    With `data.views` they are the features of the network's frozen part, which are computed first if
    they are not in their files yet.

    Args:
      config: the run.
      network: its network.
      variables: its variables, of which only the frozen part counts.
      sources: the training split and the splits to evaluate on.
      labels: of the training split; None if the config does not need them.
      share: the share of every global batch that this process reads.
      steps: the steps to take.
      mesh: the devices.
      terminal: shows the progress.

    Raises:
      UserError, WorkerError: as for `pipeline.training_batches` and `open_features`.
    """
    train, *evaluated = sources
    seed, data, runtime = config.seed, config.data, config.runtime
    if not data.views:
        padding = network.padding
        return Batches(
            pipeline.training_batches(
                train,
                data,
                runtime,
                share,
                seed=seed,
                steps=steps,
                padding=padding,
                labels=labels,
            ),
            [
                pipeline.evaluation_batches(
                    each, data, runtime, share, rounds=None, padding=padding
                )
                for each in evaluated
            ],
            None,
        )
    of_training, *of_evaluated = open_features(config, network, variables, sources, mesh, terminal)
    return Batches(
        reading.training_batches(
            of_training,
            runtime,
            share,
            seed=seed,
            steps=steps,
            balance=data.balance,
            labels=labels,
            pairs=data.pairs,
        ),
        [reading.evaluation_batches(each, runtime, share) for each in of_evaluated],
        of_training,
    )

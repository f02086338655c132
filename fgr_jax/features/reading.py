"""Batches of features, read from files that are mapped into memory."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any, TypedDict

import jax
import numpy as np
import numpy.typing as npt

from fgr_jax.config import Runtime
from fgr_jax.data.balance import Visit
from fgr_jax.data.pipeline import Share, batches_of, in_order, read_in_threads, visits
from fgr_jax.features.store import Shard
from fgr_jax.features.views import view_at

Row = tuple[int | None, int]  # an image, or None for padding, and one of its views


class FeatureBatch(TypedDict):
    """A process's share of a global batch of features."""

    features: Any  # a tree of arrays with B rows, the output of the network's frozen part
    label: npt.NDArray[np.int32]  # [B]
    mask: npt.NDArray[np.bool_]  # [B], false for padding and for corrupt images that are skipped


class Features:
    """The features of a split.

    Args:
      shards: all of them, in order.
      views: the number of views of each image.
      structure: of the tree that the arrays of a view form.
    """

    def __init__(self, shards: Sequence[Shard], views: int, structure: Any):
        self.views = views
        self._shards, self._structure = shards, structure
        self._shard_images = len(shards[0].label)
        self._label = np.concatenate([shard.label for shard in shards])
        self._mask = np.concatenate([shard.mask for shard in shards])

    def __len__(self) -> int:
        return len(self._label)

    def batch(self, rows: Sequence[Row]) -> FeatureBatch:
        """Copies the rows of a batch from the files into arrays of their own."""
        first = self._shards[0].leaves
        leaves = [np.empty((len(rows), *leaf.shape[2:]), leaf.dtype) for leaf in first]
        label, mask = np.zeros(len(rows), np.int32), np.zeros(len(rows), np.bool_)
        for row, (image, view) in enumerate(rows):
            if image is None:
                for leaf in leaves:
                    leaf[row] = 0
                continue
            number, index = divmod(image, self._shard_images)
            for leaf, stored in zip(leaves, self._shards[number].leaves, strict=True):
                leaf[row] = stored[index, view]
            label[row], mask[row] = self._label[image], self._mask[image]
        features = jax.tree.unflatten(self._structure, leaves)
        return FeatureBatch(features=features, label=label, mask=mask)


def training_batches(
    features: Features,
    runtime: Runtime,
    share: Share,
    *,
    seed: int,
    steps: range,
    balance: float = 0.0,
    labels: npt.NDArray[np.integer] | None = None,
    pairs: bool = False,
) -> Iterator[FeatureBatch]:
    """Yields the shuffled batches of `steps`, in the order of `pipeline.training_batches`.

    The view at a visit of an image is that of `views.view_at`. `balance`, `labels` and `pairs` are as
    for `pipeline.visits`.
    """
    order = visits(len(features), balance, labels, share, seed=seed, steps=steps, pairs=pairs)
    rows = order.map(functools.partial(_training_row, features, seed))
    batches = batches_of(rows, features.batch, share, steps)
    return iter(read_in_threads(batches, runtime.decode_threads))


def evaluation_batches(
    features: Features, runtime: Runtime, share: Share
) -> Iterator[FeatureBatch]:
    """Yields every image once, in order, again and again; the last batch is padded and masked."""
    rows = in_order(len(features), share).map(_evaluation_row)
    steps = range(len(rows) // share.batch_size)
    batches = batches_of(rows, features.batch, share, steps)
    endless = batches.repeat(None, reseed_each_epoch=False)
    return iter(read_in_threads(endless, runtime.decode_threads))


def _training_row(features: Features, seed: int, visit: Visit) -> Row:
    return visit.example, view_at(seed, features.views, visit.example, visit.number)


def _evaluation_row(index: int) -> Row:
    return (None if index < 0 else index), 0

"""Opens the features of a run's splits, and computes what is missing."""

import functools
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from fgr_jax import distributed
from fgr_jax.config import Config, Data
from fgr_jax.data.augmentation import View
from fgr_jax.data.images import test_places
from fgr_jax.data.prepare.preparation import local_data_dir
from fgr_jax.data.read_ahead import map_ahead
from fgr_jax.data.source import ExampleSource
from fgr_jax.errors import UserError
from fgr_jax.features.computing import compute_missing
from fgr_jax.features.description import describe, in_words
from fgr_jax.features.reading import Features
from fgr_jax.features.store import DamagedError, Shard, Store
from fgr_jax.features.views import fixed_views
from fgr_jax.files.buckets import is_in_bucket
from fgr_jax.models.network import Network, frozen_output_shapes
from fgr_jax.terminal import Terminal

FOLDER = "features"
_OVERHEAD_BYTES = 10_000_000  # of records and headers, and of what else is written meanwhile
_CHECKED_AHEAD = 4


def features_dir(data_dir: str) -> Path:
    """Returns the folder of all features, beside the prepared data sets."""
    return local_data_dir("" if is_in_bucket(data_dir) else data_dir) / FOLDER


def open_features(
    config: Config,
    network: Network,
    variables: Any,
    sources: Sequence[ExampleSource],
    mesh: Mesh,
    terminal: Terminal,
) -> tuple[Features, ...]:
    """Returns the features of the training views, and of the center crops of each other split.

    Those that are not there are computed first, and the files are compared with their digests.

    Args:
      config: the run.
      network: its network, with a frozen part.
      variables: its variables, replicated over the devices.
      sources: the training split and the splits to evaluate on.
      mesh: the devices of the job.
      terminal: shows the progress.

    Raises:
      UserError: there is no room for them, a file is damaged or not there, or an image is corrupt.
      Stopped: as for `compute_missing`.
    """
    views = (config.data.views, *[0] * len(sources[1:]))
    folder = features_dir(config.data.data_dir)
    stores = []
    for source, count in zip(sources, views, strict=True):
        about = describe(config, network, variables, source.identity, views=count)
        stores.append(Store(folder / about.name, about))
    distributed.once_for_all(lambda: _check_room(folder, stores))
    for store, source, count in zip(stores, sources, views, strict=True):
        if distributed.agreed_integer(len(store.missing())):
            view_of = functools.partial(_views, config.data, count)
            compute_missing(store, config, network, variables, source, view_of, mesh, terminal)
    structure = jax.tree.structure(frozen_output_shapes(network, config.data.crop))
    return tuple(_opened(store, structure, terminal) for store in stores)


def _views(data: Data, count: int, example: int) -> View:
    """Returns the random views of an image, or with `count` 0 its center crop."""
    return fixed_views(data, count, example) if count else View(example, test_places(1))


def _check_room(folder: Path, stores: list[Store]) -> None:
    """Checks that the disk has room for what is missing."""
    needed = 0
    for store in stores:
        images = store.description.shards
        missing = sum(len(images[number]) for number in store.missing())
        needed += missing * store.description.bytes_per_image
    if not needed:
        return
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + _OVERHEAD_BYTES:
        raise UserError(
            f"the features need {in_words(needed)} in {folder}, where {in_words(free)} are free: make "
            "room (python -m fgr_jax.features --list names those of other runs), lower "
            "--config.data.views, or freeze up to a later stage"
        )


def _opened(store: Store, structure: Any, terminal: Terminal) -> Features:
    """Checks the files of a folder, of which each process reads its share, and maps them."""
    numbers = range(len(store.description.shards))
    lost = distributed.agreed_maximum(len(store.missing()))
    if lost:
        raise UserError(
            f"{store.folder}: {lost} of {len(numbers)} files that other processes wrote are not there: "
            "all processes of a job must share the folder of the features, which is in "
            "--config.data.data_dir"
        )
    terminal.line(f"features  {store.description} from {store.folder}")
    mine = numbers[jax.process_index() :: jax.process_count()]
    problem: DamagedError | None = None
    with terminal.bar("checking features", len(mine), unit="files", per=1) as bar:
        threads = min(_CHECKED_AHEAD, os.cpu_count() or 1)
        results = map_ahead(
            functools.partial(_problem, store.check), mine, threads=threads, ahead=_CHECKED_AHEAD
        )
        for done, found in zip(itertools.count(1), results, strict=False):
            problem = problem or found
            bar.update(done)
    problem = problem or _problem(lambda _: store.check_description(), 0)
    shards: list[Shard] = []
    for number in numbers:
        problem = problem or _problem(lambda number: shards.append(store.open(number)), number)
    # All processes end with an error if one does.
    if distributed.agreed_maximum(int(problem is not None)):
        raise problem or UserError(f"{store.folder}: another process found a damaged file")
    return Features(shards, store.description.views, structure)


def _problem(action: Callable[[int], None], number: int) -> DamagedError | None:
    try:
        action(number)
    except DamagedError as error:
        return error
    return None

"""Parameters of a head that are computed from features of the training images, before the first step."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fgr_jax import distributed
from fgr_jax.config import Config
from fgr_jax.data.augmentation import View
from fgr_jax.data.images import test_places
from fgr_jax.data.pipeline import Source, views_batches
from fgr_jax.errors import UserError
from fgr_jax.features.reading import Features
from fgr_jax.models.heads.interface import FromFeatures
from fgr_jax.models.network import HEAD, Network
from fgr_jax.random_streams import Stream, stream_seed
from fgr_jax.terminal import Terminal
from fgr_jax.train.step import network_input

_IMAGES_PER_BATCH = 32
# Of a class; those of a larger one are spread evenly over all. They bound the memory, as what is kept of
# the images of one class is all that is there at a time.
_IMAGES_OF_CLASS = 1000


def head_from_features(
    config: Config,
    network: Network,
    variables: dict[str, Any],
    source: Source,
    labels: npt.NDArray[np.integer],
    cached: Features | None,
    mesh: Mesh,
    terminal: Terminal,
) -> dict[str, Any]:
    """Returns the variables with the parameters that the head computes from features.

    They are a function of the seed, the weights and the images. Every process computes them all, on its
    own devices.

    Args:
      config: the run.
      network: its network, whose head is a `FromFeatures`.
      variables: its variables, replicated over the devices.
      source: the images of the training split, of which center crops are taken.
      labels: those of all images, `[N]`.
      cached: the features of the frozen part, of which the first view is taken in place of images.
      mesh: the devices of the job.
      terminal: shows the progress.

    Raises:
      UserError: an image is corrupt, or a feature is not finite.
    """
    head: Any = network.classifier
    assert isinstance(head, FromFeatures)
    local = distributed.data_mesh(
        [each for each in mesh.devices.flat if each.process_index == jax.process_index()]
    )
    everywhere, by_row = distributed.replicated(local), distributed.batch_sharding(local)

    def observed(variables: Any, batch: Any) -> Any:
        x, start = network_input(config, network, batch, train=False)

        def observe(bound: Network) -> Any:
            features, more = bound.head_input(x, train=False, start=start)
            return head.observe(features, batch["mask"], **more)

        return network.apply(variables, method=observe)

    compute = jax.jit(
        observed, in_shardings=(everywhere, by_row), out_shardings=(by_row, everywhere)
    )
    host = jax.device_get(variables)
    given = jax.device_put(host, everywhere)
    images = _by_class(labels)
    size = -(-_IMAGES_PER_BATCH // local.size) * local.size
    rows = [images[start : start + size] for start in range(0, len(images), size)]
    sums: Any = None

    def of_images() -> Iterator[tuple[int, Any]]:
        """Yields the label of each image and what is kept of it."""
        nonlocal sums
        batches = _batches(config, network, source, cached, rows, size)
        with terminal.bar("initializing the head", len(rows), unit="images", per=size) as bar:
            for done, (chosen, batch) in enumerate(zip(rows, batches, strict=True), start=1):
                distributed.stop_if_preempted()
                kept, of_batch = jax.device_get(compute(given, jax.device_put(batch, by_row)))
                of_batch = jax.tree.map(lambda leaf: leaf.astype(np.float64), of_batch)
                sums = of_batch if sums is None else jax.tree.map(np.add, sums, of_batch)
                if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(sums)):
                    raise UserError(
                        f"--config.pretrained={config.pretrained}: a feature of these weights is NaN "
                        "or infinite"
                    )
                for row, image in enumerate(chosen):
                    yield int(labels[image]), jax.tree.map(lambda leaf, row=row: leaf[row], kept)
                bar.update(done)

    by_class = {}
    for label, group in itertools.groupby(of_images(), key=lambda pair: pair[0]):
        kept = jax.tree.map(lambda *leaves: np.stack(leaves), *(each for _, each in group))
        generator = np.random.default_rng([stream_seed(config.seed, Stream.HEAD_START), label])
        found = head.for_class(kept, generator)
        if found is not None:
            by_class[label] = found
    params = {**host["params"], HEAD: head.initialized(host["params"][HEAD], by_class, sums)}
    params = multihost_utils.broadcast_one_to_all(params)
    terminal.line(f"head      initialized from features of {len(images):,} training images")
    return {**variables, "params": jax.device_put(params, distributed.replicated(mesh))}


def _by_class(labels: npt.NDArray[np.integer]) -> list[int]:
    """Returns the images to take, in the order of their classes."""
    found: list[int] = []
    for label in np.unique(labels):
        of_class = np.flatnonzero(labels == label)
        count = min(len(of_class), _IMAGES_OF_CLASS)
        found += of_class[np.arange(count) * len(of_class) // count].tolist()
    return found


def _batches(
    config: Config,
    network: Network,
    source: Source,
    cached: Features | None,
    rows: Sequence[Sequence[int]],
    size: int,
) -> Iterator[dict[str, Any]]:
    """Yields batches of center crops or cached features, filled up to `size` rows."""
    padded: list[list[int | None]] = [[*each, *[None] * (size - len(each))] for each in rows]
    if cached is not None:
        for each in padded:
            yield dict(cached.batch([(image, 0) for image in each]))
        return
    batches = views_batches(
        source, config.data, config.runtime, padded, _center_crop, padding=network.padding
    )
    for batch in batches:
        yield {"image": batch["image"][:, 0], "mask": batch["mask"]}


def _center_crop(image: int) -> View:
    return View(image, test_places(1))

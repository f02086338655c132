"""The network over a whole test split: every picture once, on all devices of all processes."""

import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.experimental import multihost_utils
from jax.sharding import Mesh, PartitionSpec

from fgr_jax.config import Config
from fgr_jax.data.pipeline import (
    AnnotatedSource,
    Share,
    annotated_batches,
    evaluation_batch_count,
)
from fgr_jax.distributed import batch_sharding, replicated
from fgr_jax.diversification import class_scores
from fgr_jax.evaluate import diversity
from fgr_jax.evaluate.diversity import MapMeasures
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.models.network import Network, forward
from fgr_jax.terminal import Terminal

CROPS = {"one": 1, "five": 5}

# What goes to the devices; names stay on the host.
_ARRAYS = ("image", "label", "mask", "parts")


class Shown(NamedTuple):
    """What the network made of a batch, on the devices; of a split, in NumPy."""

    label: Any  # int32 [N]
    mask: Any  # bool [N]
    # By the center crop: the network's scores, float32 [N, C].
    center_scores: Any
    # By all five crops: ln of the mean of their softmax outputs, whose softmax is that mean, [N, C].
    # None where one was asked for.
    averaged_scores: Any
    visible_parts: Any  # int32 [N], in the center crop
    true_map: MapMeasures  # of the true class, in the center crop
    predicted_map: MapMeasures  # of the class that the center crop gives


@dataclasses.dataclass(frozen=True, slots=True)
class Predictions:
    """What the network made of the N pictures of a split that could be decoded, in their order."""

    names: list[str]  # [N]
    indices: npt.NDArray[np.integer]  # in the split, [N]
    shown: Shown
    corrupt: list[str]  # the others' names, and what is wrong with them

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Of all crops that were asked for, [N, C]."""
        averaged = self.shown.averaged_scores
        return self.shown.center_scores if averaged is None else averaged


def predict_split(
    config: Config,
    trained: TrainedNetwork,
    source: AnnotatedSource,
    mesh: Mesh,
    terminal: Terminal,
    *,
    crops: int,
    batch_size: int,
) -> Predictions | None:
    """Runs the network over `source`; process 0 gets what came out, the others None.

    Every process decodes its share of each batch.

    Args:
      config: of the run.
      trained: the network.
      source: the split.
      mesh: all devices.
      terminal: shows how far it is.
      crops: 1 or 5.
      batch_size: pictures in a batch, over all devices; it is rounded up to a multiple of their number.
    """
    batch_size = -(-batch_size // mesh.size) * mesh.size
    share = Share(batch_size, jax.process_index(), jax.process_count())
    keeps = jax.process_index() == 0
    show = _compiled(trained.network, mesh)
    sharding = batch_sharding(mesh)
    count = evaluation_batch_count(source, share)
    batches = annotated_batches(source, config.data, config.runtime, share, crops=crops)
    kept: list[Shown] = []
    told: list[list[tuple[str, str]]] = []  # of this process's share of each batch
    on_the_way: Shown | None = None  # a batch that the devices compute while the next is decoded
    with terminal.bar("evaluating", count, unit="images", per=batch_size) as bar:
        for done, batch in enumerate(batches, start=1):
            arrays = {
                name: jax.make_array_from_process_local_data(sharding, batch[name])  # type: ignore[literal-required]
                for name in _ARRAYS
            }
            previous, on_the_way = on_the_way, show(trained.variables, arrays)
            told.append(list(zip(batch["name"], batch["problem"], strict=True)))
            if previous is not None:
                kept.append(jax.device_get(previous))
            if not keeps:  # but it waited: pictures must not pile up on the devices
                kept.clear()
            bar.update(done)
        if on_the_way is not None:
            kept.append(jax.device_get(on_the_way))
    everyones = _of_all_processes(told)
    if not keeps:
        return None
    # Row i of batch b of every process in turn: the order of the global batch, and of the examples.
    rows = [
        row for of_a_batch in zip(*everyones, strict=True) for part in of_a_batch for row in part
    ]
    whole = jax.tree.map(lambda *parts: np.concatenate(parts), *kept)
    return Predictions(
        names=[name for (name, _), there in zip(rows, whole.mask, strict=True) if there],
        indices=np.flatnonzero(whole.mask),
        shown=jax.tree.map(lambda values: values[whole.mask], whole),
        corrupt=[f"{name} {problem}" for name, problem in rows if problem],
    )


def _compiled(network: Network, mesh: Mesh) -> Any:
    """The jitted function (variables, batch) -> `Shown` of the whole batch, on every process.

    Each device sees to its own rows. Only what comes out is gathered: little, beside the pictures.
    """
    stride = network.stride

    @functools.partial(jax.jit, out_shardings=replicated(mesh))
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec(), PartitionSpec("batch")),
        out_specs=PartitionSpec("batch"),
    )
    def show(variables: Any, batch: Mapping[str, jax.Array]) -> Shown:
        images, labels = batch["image"], batch["label"]
        pictures, crops = images.shape[:2]
        flat = images.reshape(pictures * crops, *images.shape[2:])
        maps: Any = forward(network, variables, flat).maps  # [B·V, H, W, C]
        scores = class_scores(maps).reshape(pictures, crops, -1)
        center_maps = maps.reshape(pictures, crops, *maps.shape[1:])[:, -1]
        center_scores = scores[:, -1]

        def measured(classes: jax.Array) -> MapMeasures:
            of_class = jnp.take_along_axis(center_maps, classes[:, None, None, None], axis=-1)
            return diversity.measure(of_class[..., 0], batch["parts"], stride)

        return Shown(
            label=labels,
            mask=batch["mask"],
            center_scores=center_scores,
            averaged_scores=None if crops == 1 else averaged_over_crops(scores),
            visible_parts=jnp.sum(batch["parts"][:, :, 2] > 0, axis=1, dtype=jnp.int32),
            true_map=measured(labels),
            predicted_map=measured(jnp.argmax(center_scores, axis=-1)),
        )

    return show


def averaged_over_crops(scores: jax.Array) -> jax.Array:
    """Logarithm of the mean of softmax(s_v) over crops v: `[B, V, C]` to `[B, C]`.

    The softmax outputs are averaged (SEMANTICS), not the scores. In logarithms, so that classes of
    little probability keep their order.
    """
    log_p = jax.nn.log_softmax(scores, axis=-1)
    return jax.nn.logsumexp(log_p, axis=1) - jnp.log(scores.shape[1])


def _of_all_processes(value: Any) -> list[Any]:
    """The JSON values of all processes, in their order, on every process."""
    if jax.process_count() == 1:
        return [value]
    told = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(told))).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: len(told)] = told
    gathered = multihost_utils.process_allgather(padded)
    return [
        json.loads(bytes(row[:size]).decode()) for row, size in zip(gathered, sizes, strict=True)
    ]

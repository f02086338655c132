"""Predictions for a test split: every image once, on all devices of all processes."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fgr_jax.config import Config
from fgr_jax.data.image_files import as_text
from fgr_jax.data.pipeline import Share, Source, annotated_batches, evaluation_batch_count
from fgr_jax.evaluate import diversity
from fgr_jax.evaluate.diversity import MapMeasures
from fgr_jax.inference.forward import DeviceBatch, HostBatch, compiled, maps_of, stream
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.losses.interface import Outputs
from fgr_jax.terminal import Terminal

# The arrays that are moved to the devices; names and problems stay on the host.
_ARRAYS = ("image", "label", "mask", "parts")


class PerImage(NamedTuple):
    """What is computed for each image: of a batch in JAX, of a split in NumPy."""

    label: Any  # int32 [N]
    mask: Any  # bool [N]: false for padding and for corrupt images
    center_scores: Any  # float32 [N, C]
    # ln of the mean softmax output over all five crops, whose softmax is that mean, [N, C].
    # None if only the center was requested.
    averaged_scores: Any
    visible_parts: Any  # int32 [N], in the center crop
    # Measures of the center crop's maps of the true and of the predicted class; None for networks
    # without maps.
    true_map: MapMeasures | None
    predicted_map: MapMeasures | None


@dataclasses.dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions for the N images of a split that can be decoded, in their order."""

    names: list[str]  # [N]
    indices: npt.NDArray[np.integer]  # indices in the split, [N]
    per_image: PerImage
    corrupt: list[str]  # the names of the other images, each with its problem

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """The scores over all requested crops, `[N, C]`."""
        averaged = self.per_image.averaged_scores
        return self.per_image.center_scores if averaged is None else averaged


def predict_split(
    config: Config,
    trained: TrainedNetwork,
    source: Source,
    mesh: Mesh,
    terminal: Terminal,
    *,
    crops: int,
    batch_size: int,
) -> Predictions | None:
    """Applies the network to 1 or 5 `crops` of every image of `source`.

    Every process decodes its share of each batch. Process 0 gets the predictions, the others None.
    `batch_size`, over all devices of `mesh`, is rounded up to a multiple of their number.
    """
    batch_size = -(-batch_size // mesh.size) * mesh.size
    share = Share(batch_size, jax.process_index(), jax.process_count())
    count = evaluation_batch_count(source, share)
    stride, origin = trained.network.stride, trained.network.origin
    run = compiled(trained, mesh, lambda outputs, batch: _per_image(outputs, batch, stride, origin))

    def batches() -> Iterator[tuple[list[tuple[str, str]], HostBatch]]:
        padding = trained.network.padding
        for batch in annotated_batches(
            source, config.data, config.runtime, share, crops=crops, padding=padding
        ):
            arrays: HostBatch = {name: batch[name] for name in _ARRAYS}  # type: ignore[literal-required]
            yield list(zip(batch["name"], batch["problem"], strict=True)), arrays

    parts: list[PerImage] = []
    # Of this process's share of each batch.
    names_and_problems: list[list[tuple[str, str]]] = []
    with terminal.bar("evaluating", count, unit="images", per=batch_size) as bar:
        for done, (of_share, results) in enumerate(stream(run, batches(), mesh), start=1):
            names_and_problems.append(of_share)
            if jax.process_index() == 0:
                parts.append(results)
            bar.update(done)
    of_all_processes = _gathered(names_and_problems)
    if jax.process_index() > 0:
        return None
    # Within each batch, the rows of each process in turn: the order of the global batch.
    rows = [row for batch in zip(*of_all_processes, strict=True) for part in batch for row in part]
    whole: PerImage = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    return Predictions(
        names=[
            as_text(name) for (name, _), decoded in zip(rows, whole.mask, strict=True) if decoded
        ],
        indices=np.flatnonzero(whole.mask),
        per_image=jax.tree.map(lambda values: values[whole.mask], whole),
        corrupt=[f"{as_text(name)} {problem}" for name, problem in rows if problem],
    )


def _per_image(outputs: Outputs, batch: DeviceBatch, stride: int, origin: float) -> PerImage:
    """Computes the results to keep from the outputs, which have B·V rows for V crops of B images."""
    labels, (images, crops) = batch["label"], batch["image"].shape[:2]
    scores = outputs.scores.reshape(images, crops, -1)
    center_scores = scores[:, -1]
    measures: tuple[MapMeasures | None, ...] = (None, None)
    if outputs.maps is not None:
        center_maps = outputs.maps.reshape(images, crops, *outputs.maps.shape[1:])[:, -1]
        classes = jnp.stack([labels, jnp.argmax(center_scores, axis=-1)], axis=1)
        maps = maps_of(center_maps, classes)
        measures = tuple(
            diversity.measure(maps[:, place], batch["parts"], stride, origin) for place in (0, 1)
        )
    return PerImage(
        labels,
        batch["mask"],
        center_scores,
        None if crops == 1 else averaged_over_crops(scores),
        jnp.sum(batch["parts"][:, :, 2] > 0, axis=1, dtype=jnp.int32),
        *measures,
    )


def averaged_over_crops(scores: jax.Array) -> jax.Array:
    """Computes the log of the mean of softmax(s_v) over crops v: `[B, V, C]` to `[B, C]`.

    The softmax outputs are averaged, not the scores. Working in logarithms preserves the order of
    improbable classes.
    """
    log_p = jax.nn.log_softmax(scores, axis=-1)
    return jax.nn.logsumexp(log_p, axis=1) - jnp.log(scores.shape[1])


def _gathered(value: Any) -> list[Any]:
    """Returns the JSON values of all processes, in their order, on every process."""
    if jax.process_count() == 1:
        return [value]
    encoded = np.frombuffer(json.dumps(value).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(encoded))).reshape(-1)
    buffer = np.zeros(int(sizes.max()), np.uint8)
    buffer[: len(encoded)] = encoded
    gathered = multihost_utils.process_allgather(buffer)
    return [
        json.loads(bytes(row[:size]).decode()) for row, size in zip(gathered, sizes, strict=True)
    ]

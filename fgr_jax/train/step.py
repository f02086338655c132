"""The training step and the test step: pure functions, compiled once, spread over a mesh.

The batch is sharded over the mesh's one axis and the state is replicated, so the gradient is that of
the masked mean over the *global* batch and BatchNorm's statistics cover the global batch too. The
same code runs on one device or on many.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from fgr_jax import random_streams
from fgr_jax.config import Config
from fgr_jax.data.symmetries import turned
from fgr_jax.digests import digest, digest_of_tree
from fgr_jax.distributed import batch_sharding, replicated
from fgr_jax.diversification import class_scores, draw, suppress
from fgr_jax.losses.compared import (
    center_loss,
    entropy,
    gaussian_bias,
    large_margin_gaussian_mixture,
    moved_centers,
    pairwise_confusion,
)
from fgr_jax.losses.gce import cross_entropy, gradient_boosting_cross_entropy
from fgr_jax.models.network import CamNetwork, class_means, with_bias

# ImageNet's channel means and deviations, for pixels in [0, 1], RGB.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

# How far center loss moves its centers in a step (Wen et al. 2016).
CENTER_RATE = 0.5

# `fgr_jax.data.pipeline.Batch`, or its `TrainingBatch` to train on, on the devices.
DeviceBatch = Mapping[str, jax.Array]


class Totals(flax.struct.PyTreeNode):
    """Sums over examples. They are added up on the devices and divided once, at the end."""

    examples: jax.Array
    loss: jax.Array
    top1: jax.Array
    top5: jax.Array

    @classmethod
    def zeros(cls) -> "Totals":
        # Each of its own: a state's arrays are donated, and none may be donated twice.
        return cls(
            examples=jnp.zeros((), jnp.int32),
            loss=jnp.zeros((), jnp.float32),
            top1=jnp.zeros((), jnp.int32),
            top5=jnp.zeros((), jnp.int32),
        )

    def __add__(self, other: "Totals") -> "Totals":
        return jax.tree.map(jnp.add, self, other)


class TrainState(flax.struct.PyTreeNode):
    """Everything that changes from step to step, and everything a checkpoint holds."""

    step: jax.Array  # steps taken
    params: Any
    batch_stats: Any
    opt_state: Any
    epoch_totals: Totals  # since the last line of metrics; here, so that a resumed epoch is whole


class CenterTrainState(TrainState):
    """The state of a run with center loss. Others have no such field: Orbax would save a None too."""

    centers: jax.Array  # of the pooled features of every class, float32 `[C, D]`; no parameters


class StepRecord(NamedTuple):
    """What is kept of a training step beside the new state."""

    loss: jax.Array  # of the batch, a mean
    mask_digest: jax.Array  # of the draws of the masks; zeros where the block is off


class Steps(NamedTuple):
    """The compiled functions of a run."""

    init: Callable[[], TrainState]
    zeros: Callable[[], Totals]
    is_finite: Callable[[TrainState], jax.Array]  # whether all weights and statistics are numbers
    train: Any  # jitted (TrainState, DeviceBatch) -> (TrainState, StepRecord)
    fingerprint: Any  # jitted (TrainState after the step, DeviceBatch, StepRecord) -> digests
    test: Any  # jitted (TrainState, DeviceBatch, Totals) -> Totals


def build_network(config: Config, num_classes: int) -> CamNetwork:
    """The network that `config.network` describes."""
    return CamNetwork(
        num_classes=num_classes,
        depth=config.network.depth,
        width=config.network.width,
        last_stride=config.network.last_stride,
        dtype=jnp.dtype(config.network.compute_dtype),
    )


def build_steps(
    config: Config,
    network: CamNetwork,
    optimizer: optax.GradientTransformation,
    *,
    gce_start_step: int | None,
    gce_fade_steps: int = 0,
    mesh: Mesh,
) -> Steps:
    """Compiles the functions of a run for `mesh`.

    Args:
      config: the run.
      network: from `build_network`.
      optimizer: its updates are applied to the parameters as they are.
      gce_start_step: the first step with GCE, cross-entropy before; None: cross-entropy throughout.
      gce_fade_steps: an addition to the paper: so many steps from there on, the weight of the negatives
        that GCE leaves out falls from 1 to 0.
      mesh: from `fgr_jax.devices.data_mesh`.
    """
    everywhere, by_row = replicated(mesh), batch_sharding(mesh)
    loss = config.loss

    @functools.partial(jax.jit, out_shardings=everywhere)
    def init() -> TrainState:
        size = config.data.crop
        variables = network.init(
            random_streams.stream_key(config.seed, random_streams.Stream.PARAMETERS),
            jnp.zeros((1, size, size, 3)),
            train=False,
        )
        state = TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=optimizer.init(variables["params"]),
            epoch_totals=Totals.zeros(),
        )
        if not loss.center:
            return state
        return CenterTrainState(**vars(state), centers=jnp.zeros_like(class_means(state.params)))

    # Each device sorts its own rows: left to itself, XLA gathers all scores everywhere for top_k.
    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(PartitionSpec("batch"), PartitionSpec("batch"), PartitionSpec()),
        out_specs=PartitionSpec("batch"),
    )
    def classification_loss(scores: jax.Array, labels: jax.Array, step: jax.Array) -> jax.Array:
        """Cross-entropy or GCE, whichever it is at `step`, `[B]`."""
        if gce_start_step is None:
            return cross_entropy(scores, labels, label_smoothing=loss.label_smoothing)
        if gce_fade_steps:  # an addition to the paper
            weight = jnp.clip((gce_start_step + gce_fade_steps - step) / gce_fade_steps, 0, 1)
            return gradient_boosting_cross_entropy(scores, labels, loss.k, rest_weight=weight)
        gce = gradient_boosting_cross_entropy(scores, labels, loss.k)
        if gce_start_step == 0:
            return gce
        return jnp.where(step < gce_start_step, cross_entropy(scores, labels), gce)

    def training_loss(
        scores: jax.Array, features: jax.Array, params: Any, state: TrainState, batch: DeviceBatch
    ) -> jax.Array:
        """The loss that the config describes, `[B]`. What has no weight is not computed.

        `scores` `[B, C]` are those after the block, `features` `[B, D]` pooled without it.
        """
        labels = batch["label"]
        if loss.lgm:
            return large_margin_gaussian_mixture(
                scores,
                features,
                class_means(params),
                labels,
                margin=loss.lgm_margin,
                likelihood_weight=loss.lgm,
            )
        losses = classification_loss(scores, labels, state.step)
        if loss.max_entropy:
            losses -= loss.max_entropy * entropy(scores)
        if loss.pairwise_confusion:
            # One number of the batch, added to every example: so it is in their mean, once.
            losses += loss.pairwise_confusion * pairwise_confusion(scores, labels, batch["mask"])
        if isinstance(state, CenterTrainState):
            losses += loss.center * center_loss(features, state.centers, labels)
        return losses

    def diversified(maps: jax.Array, step: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The maps after the block, and a digest of what it drew."""
        block = config.diversification
        if block.alpha == 1:
            return maps, jnp.zeros(2, jnp.uint32)
        draws = draw(
            random_streams.stream_key(config.seed, random_streams.Stream.DIVERSIFICATION, step),
            maps.shape,
            p_peak=block.p_peak,
            p_patch=block.p_patch,
            patch_size=block.patch_size,
        )
        return suppress(maps, draws, block.alpha), digest_of_tree(draws)

    @functools.partial(
        jax.jit,
        in_shardings=(everywhere, by_row),
        out_shardings=everywhere,
        donate_argnums=0,
    )
    def train(state: TrainState, batch: DeviceBatch) -> tuple[TrainState, StepRecord]:
        def objective(params: Any) -> tuple[jax.Array, tuple[Any, Totals, jax.Array, jax.Array]]:
            # L-GM's bias follows from its means, and is added to the scores: the block, which suppresses
            # what the pictures show, leaves it alone.
            used = with_bias(params, jnp.zeros(network.num_classes)) if loss.lgm else params
            maps, updates = network.apply(
                {"params": used, "batch_stats": state.batch_stats},
                normalize(turned(batch["image"], batch["symmetry"])),
                train=True,
                mutable=["batch_stats", "intermediates"],
            )
            features = class_scores(updates["intermediates"]["backbone"]["layer4"][0])
            maps, mask_digest = diversified(maps, state.step)
            scores = class_scores(maps)
            if loss.lgm:
                scores += gaussian_bias(class_means(params))
            losses = training_loss(scores, features, params, state, batch)
            totals = sum_over_examples(scores, losses, batch)
            mean_loss = totals.loss / jnp.maximum(totals.examples, 1)
            return mean_loss, (updates["batch_stats"], totals, mask_digest, features)

        gradients, (batch_stats, totals, mask_digest, features) = jax.grad(objective, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new_state = state.replace(
            step=state.step + 1,
            params=with_gaussian_bias(params) if loss.lgm else params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            epoch_totals=state.epoch_totals + totals,
        )
        if isinstance(new_state, CenterTrainState):
            new_state = new_state.replace(
                centers=moved_centers(
                    features, new_state.centers, batch["label"], batch["mask"], rate=CENTER_RATE
                )
            )
        mean_loss = totals.loss / jnp.maximum(totals.examples, 1)
        return new_state, StepRecord(mean_loss, mask_digest)

    @functools.partial(
        jax.jit, in_shardings=(everywhere, by_row, everywhere), out_shardings=everywhere
    )
    def test(state: TrainState, batch: DeviceBatch, totals: Totals) -> Totals:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        maps: Any = network.apply(variables, normalize(batch["image"]), train=False)
        scores = class_scores(maps)
        losses = cross_entropy(scores, batch["label"])
        return totals + sum_over_examples(scores, losses, batch)

    @functools.partial(
        jax.jit, in_shardings=(everywhere, by_row, everywhere), out_shardings=everywhere
    )
    def fingerprint(
        state: TrainState, batch: DeviceBatch, record: StepRecord
    ) -> dict[str, jax.Array]:
        return {
            "images": digest(turned(batch["image"], batch["symmetry"])),
            "labels": digest(batch["label"]) + digest(batch["mask"]),
            "masks": record.mask_digest,
            "loss": digest(record.loss),
            "parameters": digest_of_tree(_learned(state)),
        }

    zeros = jax.jit(Totals.zeros, out_shardings=everywhere)
    return Steps(
        init=init,
        zeros=zeros,
        is_finite=_is_finite,
        train=train,
        fingerprint=fingerprint,
        test=test,
    )


def _learned(state: TrainState) -> tuple[Any, ...]:
    """Parameters, statistics and, where there are any, centers."""
    centers = state.centers if isinstance(state, CenterTrainState) else None  # no leaf
    return state.params, state.batch_stats, centers


@jax.jit
def _is_finite(state: TrainState) -> jax.Array:
    leaves = jax.tree.leaves(_learned(state))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def with_gaussian_bias(params: Any) -> Any:
    """The parameters with the bias that makes the network's scores L-GM's, −½‖μ_c‖².

    It is put there after every step, so that whoever reads the parameters, evaluation, an export or
    another run, has an ordinary classifier. It has no gradient and no weight decay of its own.
    """
    return with_bias(params, gaussian_bias(class_means(params)))


def normalize(images: jax.Array) -> jax.Array:
    """uint8 `[B, H, W, 3]` to float32, ImageNet's mean 0 and deviation 1 in each channel."""
    mean, std = np.asarray(IMAGE_MEAN, np.float32), np.asarray(IMAGE_STD, np.float32)
    return (images.astype(jnp.float32) / 255 - mean) / std


def sum_over_examples(scores: jax.Array, losses: jax.Array, batch: DeviceBatch) -> Totals:
    """Adds up `losses` `[B]` and the hits of `scores` `[B, C]` where the batch's mask is true.

    An example counts as a top-n hit when fewer than n classes score higher, or equally high at a
    lower index: the order of a stable descending sort. A NaN score never hits.
    """
    labels, mask = batch["label"], batch["mask"]
    true_score = jnp.take_along_axis(scores, labels[:, None], axis=-1)
    before = jnp.arange(scores.shape[-1]) < labels[:, None]
    ahead = (scores > true_score) | ((scores == true_score) & before)
    rank = jnp.sum(ahead, axis=-1)
    countable = mask & jnp.isfinite(true_score.squeeze(-1))
    return Totals(
        examples=jnp.sum(mask, dtype=jnp.int32),
        loss=jnp.sum(jnp.where(mask, losses, 0)),
        top1=jnp.sum(countable & (rank < 1), dtype=jnp.int32),
        top5=jnp.sum(countable & (rank < 5), dtype=jnp.int32),
    )

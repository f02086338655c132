"""The training step and the test step: pure functions, compiled once, on a mesh of devices.

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
import optax
from jax.sharding import Mesh

from fgr_jax.config import Config, Diversification
from fgr_jax.data.augmentation import turned
from fgr_jax.data.mixing import is_mixing, mixed, partners
from fgr_jax.digests import digest, digest_of_tree
from fgr_jax.distributed import batch_sharding, replicated
from fgr_jax.diversification import class_scores, draw, suppress
from fgr_jax.losses import cross_entropy
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets, of_head
from fgr_jax.models.backbones import drop_path
from fgr_jax.models.heads import layers
from fgr_jax.models.network import (
    AVERAGE,
    HEAD,
    Network,
    inference_variables,
    trained_part,
    with_trained_part,
)
from fgr_jax.random_streams import Stream, stream_key
from fgr_jax.train.accumulation import over_parts, rows_of_part

# The random numbers of a network's forward pass in training, by Flax's names.
_FLAX_STREAMS = {drop_path.STREAM: Stream.DROP_PATH, layers.STREAM: Stream.HEAD}
# A `fgr_jax.data.batch.Batch` or, for training, a `TrainingBatch`, on the devices; or a
# `fgr_jax.features.reading.FeatureBatch`.
DeviceBatch = Mapping[str, Any]


class Totals(flax.struct.PyTreeNode):
    """Sums over examples, accumulated on the devices and divided at the end."""

    examples: jax.Array
    loss: jax.Array
    top1: jax.Array
    top5: jax.Array

    @classmethod
    def zeros(cls) -> "Totals":
        # Separate arrays: those of a state are donated, and none may be donated twice.
        return cls(
            examples=jnp.zeros((), jnp.int32),
            loss=jnp.zeros((), jnp.float32),
            top1=jnp.zeros((), jnp.int32),
            top5=jnp.zeros((), jnp.int32),
        )

    @property
    def mean_loss(self) -> jax.Array:
        return self.loss / jnp.maximum(self.examples, 1)

    def __add__(self, other: "Totals") -> "Totals":
        return jax.tree.map(jnp.add, self, other)


class TrainState(flax.struct.PyTreeNode):
    """Everything that changes from step to step, and everything a checkpoint holds."""

    step: jax.Array  # steps taken
    params: Any
    batch_stats: Any
    opt_state: Any  # for the parameters that are trained
    epoch_totals: Totals  # since the last line of metrics; saved, so that a resumed epoch is whole
    extra: Extra  # the objective's state
    average: Any  # the moving averages of the variables; {} if there are none

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the network that are trained."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    def starting_from(self, variables: dict[str, Any]) -> "TrainState":
        """Returns the state with other variables, which are also the first value of the averages."""
        average = jax.tree.map(jnp.copy, variables) if self.average else {}
        return self.replace(**variables, average=average)

    def saved(self) -> dict[str, Any]:
        """Returns the arrays of a checkpoint, with the objective's state at the top level.

        Without averages they have no entry, as in the checkpoints of older versions.
        """
        fields = dict(vars(self))
        fields |= fields.pop("extra")
        return fields if self.average else {k: v for k, v in fields.items() if k != AVERAGE}

    def restored(self, saved: dict[str, Any]) -> "TrainState":
        """Returns the state for which `saved()` returned `saved`; inverts it for a state of this run."""
        fields = dict(saved)
        extra = {name: fields.pop(name) for name in self.extra}
        return self.replace(**fields, extra=extra)


class StepRecord(NamedTuple):
    """The results of a training step besides the new state."""

    loss: jax.Array  # the mean over the batch
    mask_digest: jax.Array  # digest of the draws of the masks; zeros if the block is off


class Steps(NamedTuple):
    """The compiled functions of a run."""

    init: Any  # jitted () -> TrainState; with head_only=True, see `init_state`
    zeros: Callable[[], Totals]
    is_finite: Callable[[TrainState], jax.Array]  # whether all weights and statistics are finite
    train: Any  # jitted (TrainState, DeviceBatch) -> (TrainState, StepRecord)
    fingerprint: Any  # jitted (TrainState after the step, DeviceBatch, StepRecord) -> digests
    test: Any  # jitted (TrainState, DeviceBatch, Totals) -> (Totals, labels and predictions [B, 2])


def build_steps(
    config: Config,
    network: Network,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> Steps:
    """Builds the jitted functions of a run for a mesh with one axis, "batch".

    The updates of `optimizer` are added to the parameters. A head may wrap the objective.
    """
    objective = of_head(network.classifier, objective)
    everywhere, by_row = replicated(mesh), batch_sharding(mesh)
    jit = functools.partial(jax.jit, out_shardings=everywhere)
    parts = (config, network, objective, optimizer)
    return Steps(
        init=jit(
            functools.partial(init_state, *parts),
            static_argnames="head_only",
            compiler_options=_compiled_quickly(mesh),
        ),
        zeros=jit(Totals.zeros),
        is_finite=_is_finite,
        train=jit(
            functools.partial(train_step, *parts),
            in_shardings=(everywhere, by_row),
            donate_argnums=0,
        ),
        fingerprint=jit(_fingerprint, in_shardings=(everywhere, by_row, everywhere)),
        test=jit(
            functools.partial(evaluation_step, config, network),
            in_shardings=(everywhere, by_row, everywhere),
        ),
    )


def _compiled_quickly(mesh: Mesh) -> dict[str, int] | None:
    """Returns the compiler's options for a function that is called once.

    On CPUs, LLVM takes most of the time to compile random numbers, and at its first level of
    optimization a fraction of that. The numbers are the same to the bit.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 1} if on_cpu else None


def init_state(
    config: Config,
    network: Network,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    head_only: bool = False,
) -> TrainState:
    """Returns the state before the first step, with random weights.

    With `head_only` they are those of the head, and all others are zeros: for a network whose other
    weights are read from a file, where drawing them would only be compiled.
    """
    size = config.data.crop
    key = stream_key(config.seed, Stream.PARAMETERS)
    outputs, variables = network.init_with_output(key, jnp.zeros((1, size, size, 3)), train=False)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    if head_only:
        params, batch_stats = _zeros_but_for_the_head(params), _zeros_but_for_the_head(batch_stats)
    variables = {"params": params, "batch_stats": batch_stats}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **variables,
        opt_state=optimizer.init(trained_part(network, variables["params"], size)),
        epoch_totals=Totals.zeros(),
        extra=objective.init(outputs),
        average=jax.tree.map(jnp.copy, variables) if config.optimizer.average else {},
    )


def _zeros_but_for_the_head(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: entry if name == HEAD else jax.tree.map(jnp.zeros_like, entry)
        for name, entry in tree.items()
    }


def train_step(
    config: Config,
    network: Network,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    batch: DeviceBatch,
) -> tuple[TrainState, StepRecord]:
    """Takes a step: the network, the block, the objective, and the update of the parameters.

    The gradient is that of the mean over all examples of the batch, also where it is computed in parts.
    Without a frozen part, all parameters are trained.
    """
    step_key = functools.partial(stream_key, config.seed, step=state.step)
    parts = config.optimizer.accumulate

    trained = trained_part(network, state.params, config.data.crop)
    x, start = network_input(config, network, batch, train=True)
    rows = {"x": x, "label": batch["label"], "mask": batch["mask"]}
    if is_mixing(config.data):
        rows["x"], rows["share"] = mixed(config.data, step_key(Stream.MIXING), x, rows["mask"])
        rows["partner"] = partners(rows["label"])
    examples = jnp.maximum(jnp.sum(rows["mask"], dtype=jnp.int32), 1)

    def share_of_mean_loss(
        trained: Any, batch_stats: Any, rows: Any, part: Any
    ) -> tuple[jax.Array, tuple[Any, Outputs, Totals, jax.Array]]:
        outputs, updated = network.apply(
            {"params": with_trained_part(state.params, trained), "batch_stats": batch_stats},
            rows["x"],
            train=True,
            start=start,
            mutable=["batch_stats"],
            rngs={
                name: jax.random.fold_in(step_key(stream), part)
                for name, stream in _FLAX_STREAMS.items()
            },
        )
        outputs, mask_digest = diversified(
            outputs, config.diversification, step_key(Stream.DIVERSIFICATION), part, parts
        )
        losses = losses_of(objective, outputs, rows, state)
        totals = sum_over_examples(outputs.scores, losses, rows)
        batch_stats = updated.get("batch_stats", {})
        return totals.loss / examples, (batch_stats, outputs, totals, mask_digest)

    gradients_of = functools.partial(jax.grad(share_of_mean_loss, has_aux=True), trained)
    gradients, (batch_stats, outputs, totals, mask_digest) = over_parts(
        parts, gradients_of, state.batch_stats, rows
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, trained)
    params = with_trained_part(state.params, optax.apply_updates(trained, updates))
    new_state = state.replace(
        step=state.step + 1,
        params=objective.constrain(params),
        batch_stats=batch_stats,
        opt_state=opt_state,
        epoch_totals=state.epoch_totals + totals,
        extra=objective.update(
            state.extra, outputs, Targets(batch["label"], batch["mask"], state.step)
        ),
    )
    if config.optimizer.average:
        new_state = new_state.replace(average=averaged(state, new_state, config.optimizer.average))
    return new_state, StepRecord(totals.mean_loss, mask_digest)


def losses_of(
    objective: Objective, outputs: Outputs, rows: Mapping[str, jax.Array], state: TrainState
) -> jax.Array:
    """Returns the losses `[B]`; of mixed images, those of both labels, in the shares of the two."""

    def losses(labels: jax.Array) -> jax.Array:
        return objective.losses(outputs, Targets(labels, rows["mask"], state.step), state.extra)

    if "partner" not in rows:
        return losses(rows["label"])
    share = rows["share"]
    return share * losses(rows["label"]) + (1 - share) * losses(rows["partner"])


def averaged(before: TrainState, after: TrainState, decay: float) -> Any:
    """Returns the moving averages after a step: a ← a + (1 − d)·(w − a).

    d is min(decay, (1 + t)/(10 + t)) for t steps before this one. What is frozen keeps its bits.
    """
    step = before.step.astype(jnp.float32)
    share = 1 - jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, w: a + share * (w - a), before.average, after.variables)


def evaluation_step(
    config: Config, network: Network, state: TrainState, batch: DeviceBatch, totals: Totals
) -> tuple[Totals, jax.Array]:
    """Adds a batch of the test split to `totals`; the loss is cross-entropy.

    Returns:
      The sums, and for each image its label, which is −1 where the mask is false, and the class with the
      highest score, int32 `[B, 2]`.
    """
    x, start = network_input(config, network, batch, train=False)
    variables = inference_variables(vars(state))
    outputs: Any = network.apply(variables, x, train=False, start=start)
    scores = outputs.scores
    labels = batch["label"]
    totals += sum_over_examples(scores, cross_entropy(scores, labels), batch)
    shown = jnp.where(batch["mask"], labels, -1)
    return totals, jnp.stack([shown, jnp.argmax(scores, axis=-1)], axis=1).astype(jnp.int32)


def network_input(
    config: Config, network: Network, batch: DeviceBatch, *, train: bool
) -> tuple[Any, str]:
    """Returns the input of the network in a batch, and the stage that it is the output of.

    These are normalized images, turned in training, which no stage has computed (""), or the features of
    the frozen part.
    """
    if "features" not in batch:
        images: jax.Array = batch["image"]
        return network.normalize(turned(images, batch["symmetry"]) if train else images), ""
    dtype = jnp.dtype(config.network.compute_dtype)
    features = jax.tree.map(
        lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf,
        batch["features"],
    )
    return features, network.frozen


def _fingerprint(state: TrainState, batch: DeviceBatch, record: StepRecord) -> dict[str, jax.Array]:
    return {
        "images": (
            digest_of_tree(batch["features"])
            if "features" in batch
            else digest(turned(batch["image"], batch["symmetry"]))
        ),
        "labels": digest(batch["label"]) + digest(batch["mask"]),
        "masks": record.mask_digest,
        "loss": digest(record.loss),
        "parameters": digest_of_tree(_learned(state)),
    }


def diversified(
    outputs: Outputs, block: Diversification, key: jax.Array, part: Any = 0, parts: int = 1
) -> tuple[Outputs, jax.Array]:
    """Applies the diversification block between the maps and their average (equations 1–8).

    Args:
      outputs: the outputs of the head for one of `parts` parts of the batch.
      block: its config.
      key: a `jax.random` key; the draws are those of the whole batch.
      part: the number of the part.
      parts: the number of parts.

    Returns:
      The outputs with the scores of the suppressed maps, and the digest, uint32 `[2]`, of the draws;
      zeros if the block is off or the head has no maps.
    """
    if outputs.maps is None:
        return outputs, jnp.zeros(2, jnp.uint32)
    count, *rest = outputs.maps.shape
    block = block.on_maps(*rest[:2])
    if block.alpha == 1:
        return outputs, jnp.zeros(2, jnp.uint32)
    shape = (parts * count, *rest)
    draws = draw(
        key, shape, p_peak=block.p_peak, p_patch=block.p_patch, patch_size=block.patch_size
    )
    own = rows_of_part(draws, part, parts)
    scores = class_scores(suppress(outputs.maps, own, block.alpha))
    if outputs.offset is not None:
        scores += outputs.offset
    return outputs._replace(scores=scores), digest_of_tree(draws)


def _learned(state: TrainState) -> tuple[Any, ...]:
    return state.params, state.batch_stats, *state.extra.values(), state.average


@jax.jit
def _is_finite(state: TrainState) -> jax.Array:
    # All values together: XLA takes seconds to compile a reduction for each array.
    leaves = [leaf.reshape(-1) for leaf in jax.tree.leaves(_learned(state))]
    return jnp.all(jnp.isfinite(jnp.concatenate(leaves)))


def sum_over_examples(scores: jax.Array, losses: jax.Array, batch: DeviceBatch) -> Totals:
    """Sums `losses` `[B]` and the hits of `scores` `[B, C]` where the batch's mask is true.

    An example is a top-n hit if fewer than n classes score higher, or equally high at a lower index: the
    order of a stable descending sort. An example whose true score is not finite is never a hit.
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

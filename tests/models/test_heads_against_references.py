"""Scores and all gradients of the heads of other systems, against float64 references of their papers."""

from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems import bcnn, deep_ten, dep, dfl_cnn, isqrt_cov

from fgr_jax.losses import cross_entropy
from fgr_jax.losses.interface import Objective, Outputs, Targets, of_head
from fgr_jax.models.heads.bcnn import BcnnHead
from fgr_jax.models.heads.deep_ten import DeepTenHead
from fgr_jax.models.heads.dep import DepHead
from fgr_jax.models.heads.dfl_cnn import DflCnnHead
from fgr_jax.models.heads.isqrt_cov import IsqrtCovHead

CLASSES, CHANNELS, IMAGES = 5, 7, 4
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}


class System(NamedTuple):
    """A head, its reference, and what the reference calls the head's variables."""

    head: nn.Module
    reference: ModuleType
    params: dict[str, str]
    statistics: dict[str, str] = {}  # noqa: RUF012  # it is not changed


LINEAR = {"linear/kernel": "linear_weight", "linear/bias": "linear_bias"}
REDUCTION = {
    "reduction/conv/kernel": "conv_weight",
    "reduction/norm/scale": "scale",
    "reduction/norm/bias": "bias",
}
ENCODING = {"encoding/codewords": "codewords", "encoding/smoothing": "smoothing"}
OF_REDUCTION = {"reduction/norm/mean": "mean", "reduction/norm/var": "variance"}

SYSTEMS = {
    "isqrt_cov": System(
        IsqrtCovHead(CLASSES, channels=6, param_dtype=jnp.float64, dtype=jnp.float64),
        isqrt_cov,
        REDUCTION | LINEAR,
        OF_REDUCTION,
    ),
    "bcnn": System(
        BcnnHead(CLASSES, channels=4, param_dtype=jnp.float64, dtype=jnp.float64),
        bcnn,
        {"reduction/kernel": "conv_weight", "reduction/bias": "conv_bias"} | LINEAR,
    ),
    "deep_ten": System(
        DeepTenHead(CLASSES, 6, codewords=3, param_dtype=jnp.float64, dtype=jnp.float64),
        deep_ten,
        REDUCTION | ENCODING | LINEAR,
        OF_REDUCTION,
    ),
    "dep": System(
        DepHead(CLASSES, 3, factors=4, embedded=6, param_dtype=jnp.float64, dtype=jnp.float64),
        dep,
        {
            "norm/scale": "texture_scale",
            "norm/bias": "texture_bias",
            "of_texture/kernel": "texture_weight",
            "of_texture/bias": "texture_linear_bias",
            "of_average/kernel": "pool_weight",
            "of_average/bias": "pool_linear_bias",
            "norm_of_average/scale": "pool_scale",
            "norm_of_average/bias": "pool_bias",
            "of_products/kernel": "hidden_weight",
            "of_products/bias": "hidden_bias",
        }
        | ENCODING
        | LINEAR,
        {
            "norm/mean": "texture_mean",
            "norm/var": "texture_variance",
            "norm_of_average/mean": "pool_mean",
            "norm_of_average/var": "pool_variance",
        },
    ),
}


def drawn_variables(head: nn.Module, rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """Variables by their paths in each collection, none of them near 0."""
    shapes: Any = jax.eval_shape(
        lambda: head.init(jax.random.key(0), jnp.zeros((1, 3, 2, CHANNELS)), train=False)
    )
    return {
        name: {
            path: rng.uniform(0.2, 1.2, leaf.shape)
            for path, leaf in flax.traverse_util.flatten_dict(tree, sep="/").items()
        }
        for name, tree in shapes.items()
    }


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", SYSTEMS)
def test_scores_and_gradients(name: str, train: bool) -> None:
    """With the running statistics, and with those of the batch."""
    head, reference, params, statistics = SYSTEMS[name]
    rng = np.random.default_rng(7)
    with jax.enable_x64(True):
        variables = drawn_variables(head, rng)
        assert variables["params"].keys() == params.keys()
        # Of either sign where products do not come near 0, at which B-CNN's square root has a kink.
        if name != "bcnn":
            for path, value in variables["params"].items():
                variables["params"][path] = value * rng.choice([-1, 1], value.shape)
        features = rng.uniform(0, 2, (IMAGES, 3, 2, CHANNELS))
        cotangent = rng.normal(size=(IMAGES, CLASSES))

        def total(values: dict[str, Any], features: Any) -> tuple[Any, Any]:
            unflat = {
                key: flax.traverse_util.unflatten_dict(entries, sep="/")
                for key, entries in {**variables, "params": values}.items()
            }
            outputs: Any
            outputs, _ = head.apply(unflat, features, train=train, mutable=["batch_stats"])
            return jnp.sum(outputs.scores * cotangent), outputs.scores

        (ours, our_features), scores = jax.jit(jax.grad(total, (0, 1), has_aux=True))(
            variables["params"], features
        )
    # The reference's 1×1 convolutions are matrices.
    given = {
        theirs: np.squeeze(variables["params"][path], (0, 1))
        if variables["params"][path].ndim == 4
        else variables["params"][path]
        for path, theirs in params.items()
    }
    running = {theirs: variables["batch_stats"][path] for path, theirs in statistics.items()}
    arguments = {"running": None if train or not running else running}
    np.testing.assert_allclose(scores, reference.forward(features, given, **arguments), **CLOSE)
    their_features, gradients = reference.gradient(features, given, cotangent, **arguments)
    np.testing.assert_allclose(our_features, their_features, **CLOSE)
    assert gradients.keys() == set(params.values())
    for path, theirs in params.items():
        np.testing.assert_allclose(
            np.reshape(ours[path], gradients[theirs].shape), gradients[theirs], **CLOSE
        )
    # So that the tolerance means something.
    assert np.abs(scores).max() > 0.1
    assert np.abs(our_features).max() > 1e-3


def test_the_loss_of_a_filter_bank_and_its_gradients() -> None:
    """Of cross-entropy on each of the three scores, through both stages' features."""
    filters, channels = 3, 6
    names = {
        "filters/kernel": "conv_weight",
        "filters/bias": "conv_bias",
        "of_patches/kernel": "part_weight",
        "of_patches/bias": "part_bias",
        "linear/kernel": "global_weight",
        "linear/bias": "global_bias",
    }
    rng = np.random.default_rng(3)
    middle, last = rng.normal(size=(IMAGES, 3, 2, channels)), rng.normal(size=(IMAGES, 2, 2, 7))
    labels = rng.integers(0, CLASSES, IMAGES)
    kernels: dict[str, Any] = {
        "filters": (1, 1, channels, filters * CLASSES),
        "of_patches": (filters * CLASSES, CLASSES),
        "linear": (7, CLASSES),
    }
    params = {
        f"{layer}/{name}": rng.normal(size=shape if name == "kernel" else shape[-1:])
        for layer, shape in kernels.items()
        for name in ("kernel", "bias")
    }
    base = Objective(lambda outputs, targets, _: cross_entropy(outputs.scores, targets.labels))
    with jax.enable_x64(True):
        head = DflCnnHead(CLASSES, filters, dtype=jnp.float64, param_dtype=jnp.float64)

        def mean_loss(params: Any, middle: Any, last: Any) -> tuple[jax.Array, Outputs]:
            tree = {"params": flax.traverse_util.unflatten_dict(params, sep="/")}
            outputs: Any = head.apply(tree, last, train=True, earlier=middle)
            targets = Targets(jnp.asarray(labels), jnp.ones(IMAGES, bool), jnp.int32(0))
            return of_head(head, base).losses(outputs, targets, {}).mean(), outputs

        found = jax.jit(jax.value_and_grad(mean_loss, (0, 1, 2), has_aux=True))
        (loss, outputs), (ours, our_middle, our_last) = found(params, middle, last)
    given = {theirs: np.squeeze(params[path]) for path, theirs in names.items()}
    np.testing.assert_allclose(outputs.scores, dfl_cnn.forward(middle, last, given), **CLOSE)
    streams = dfl_cnn.streams(middle, last, given)
    np.testing.assert_allclose(loss, dfl_cnn.loss(streams, labels), **CLOSE)
    their_middle, their_last, gradients = dfl_cnn.streams_gradient(
        middle, last, given, dfl_cnn.loss_gradient(streams, labels)
    )
    np.testing.assert_allclose(our_middle, their_middle, **CLOSE)
    np.testing.assert_allclose(our_last, their_last, **CLOSE)
    for path, theirs in names.items():
        np.testing.assert_allclose(np.squeeze(ours[path]), gradients[theirs], **CLOSE)

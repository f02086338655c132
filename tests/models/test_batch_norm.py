"""BatchNorm over groups of images, and stages that are computed again."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from networks import by_path
from small_backbones import small_network
from tiny_step import batch_of, relative_difference

from fgr_jax.benchmark.compiled import collectives
from fgr_jax.config import Config
from fgr_jax.distributed import data_mesh
from fgr_jax.losses import cross_entropy
from fgr_jax.losses.interface import Objective
from fgr_jax.models.backbones.batch_norm import BatchNorm
from fgr_jax.train.step import Steps, build_steps

ATTRIBUTES: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-3}


def in_test_mode(group: int | None) -> nn.Module:
    """Flax's for None."""
    make: Any = nn.BatchNorm if group is None else functools.partial(BatchNorm, group)
    module: nn.Module = make(use_running_average=True, **ATTRIBUTES)
    return module


@functools.partial(jax.jit, static_argnums=0)
def trained(group: int | None, variables: Any, x: jax.Array) -> tuple[jax.Array, Any]:
    module = in_test_mode(group).clone(use_running_average=False)
    y, updated = module.apply(variables, x, mutable=["batch_stats"])
    return y, updated["batch_stats"]


def example() -> tuple[Any, Any]:
    """Variables that are none of the initial ones, and 6 images."""
    rng = np.random.default_rng(0)
    variables = {
        "params": {"scale": rng.normal(size=3), "bias": rng.normal(size=3)},
        "batch_stats": {"mean": rng.normal(size=3), "var": rng.uniform(1, 2, 3)},
    }
    images = rng.normal(1, 2, size=(6, 4, 5, 3))
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (variables, images))


def test_groups_are_flaxs_batches() -> None:
    """Outputs, gradients and running statistics; the last are means over the groups."""
    variables, x = example()
    cotangent = np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)

    @functools.partial(jax.jit, static_argnums=0)
    def pulled_back(group: int | None, x: jax.Array, cotangent: jax.Array) -> Any:
        function = functools.partial(trained, group)
        y, pullback, stats = jax.vjp(function, variables, x, has_aux=True)
        return y, stats, pullback(cotangent)

    y, stats, (of_variables, of_x) = pulled_back(2, x, cotangent)
    batches = (slice(2 * i, 2 * i + 2) for i in range(3))
    parts = [pulled_back(None, x[batch], cotangent[batch]) for batch in batches]
    np.testing.assert_allclose(y, np.concatenate([part[0] for part in parts]), atol=1e-5)
    for name, value in stats.items():
        expected = np.mean([part[1][name] for part in parts], axis=0)
        np.testing.assert_allclose(value, expected, rtol=1e-5)
    theirs = [part[2] for part in parts]
    np.testing.assert_allclose(of_x, np.concatenate([each[1] for each in theirs]), atol=1e-5)
    for name, value in of_variables["params"].items():
        expected = np.sum([each[0]["params"][name] for each in theirs], axis=0)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


def test_one_group_and_the_test_mode_are_flaxs() -> None:
    variables, x = example()
    for group in (0, 6):
        for ours, theirs in zip(
            trained(group, variables, x), trained(None, variables, x), strict=True
        ):
            jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6), ours, theirs)
    modules = [in_test_mode(group) for group in (2, None)]
    ours, theirs = jax.jit(lambda v, x: [each.apply(v, x) for each in modules])(variables, x)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    modules.append(in_test_mode(0).clone(use_running_average=False))
    init = jax.jit(lambda x: [each.init(jax.random.key(0), x) for each in modules])
    shapes, expected, initialized = map(by_path, init(x))
    for path, value in expected.items():
        np.testing.assert_array_equal(shapes[path], value)
    assert shapes.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(initialized[path], value)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5), (jnp.bfloat16, 2e-2)]
)
def test_derivative_is_that_of_flaxs_operations(dtype: Any, tolerance: float) -> None:
    """Of the output with respect to images, scale and bias, where the mean is far from 0."""
    for ours, exact in zip(gradients(0, dtype), gradients(None, np.float64), strict=True):
        difference = np.linalg.norm(ours.astype(np.float64) - exact)
        assert difference < tolerance * np.linalg.norm(exact)


@functools.cache
def gradients(group: int | None, dtype: Any) -> list[Any]:
    """Of images that bfloat16 holds exactly."""
    variables, x = example()
    kinds = {"dtype": dtype, "param_dtype": jnp.promote_types(dtype, jnp.float32)}
    module = in_test_mode(group).clone(use_running_average=False, **kinds)
    params = jax.tree.map(lambda leaf: leaf.astype(kinds["param_dtype"]), variables["params"])
    images = (3 + x).astype(jnp.bfloat16).astype(dtype)
    # Its sums, alone and with the images, are far from 0: each term of the derivative counts.
    cotangent = (x + np.cos(np.arange(x.size)).reshape(x.shape)).astype(dtype)

    def normalized(params: Any, x: jax.Array) -> Any:
        variables = {"params": params, "batch_stats": {}}
        output, _ = module.apply(variables, x, mutable=["batch_stats"])
        return output

    @jax.jit
    def pulled_back(params: Any, x: jax.Array, cotangent: jax.Array) -> Any:
        y, pullback = jax.vjp(normalized, params, x)
        assert y.dtype == dtype
        return pullback(cotangent)

    with jax.enable_x64(True):
        return jax.tree.leaves(jax.device_get(pulled_back(params, images, cotangent)))


def steps_of(config: Config, devices: int, **attributes: Any) -> Steps:
    def losses(outputs: Any, targets: Any, _: Any) -> jax.Array:
        return cross_entropy(outputs.scores, targets.labels)

    network = small_network(**attributes)
    mesh = data_mesh(jax.devices()[:devices])
    return build_steps(config, network, Objective(losses), optax.sgd(0.1, momentum=0.9), mesh)


def test_any_number_of_devices_has_the_same_groups_without_an_exchange(tiny: Config) -> None:
    tiny.diversification.alpha = 1.0
    states: dict[tuple[int, int], Any] = {}
    exchanged = {}
    for devices, group in ((1, 2), (2, 2), (4, 2), (8, 2), (8, 0)):
        steps = steps_of(tiny, devices, norm_group=group)
        state = steps.init() if group else states[8, 2]  # with which nothing is computed
        compiled = steps.train.lower(state, batch_of(16, devices=devices)).compile()
        exchanged[devices, group] = collectives(compiled.as_text())
        for seed in range(2 if group else 0):
            state, _ = compiled(state, batch_of(16, devices=devices, seed=seed))
        states[devices, group] = state
    for devices in (2, 4, 8):
        for part in ("params", "batch_stats"):
            one, other = (getattr(states[each, 2], part) for each in (devices, 1))
            assert relative_difference(one, other) < 1e-5
    found = exchanged[8, 2]
    assert {each.kind for each in found} == {"all-reduce"}
    # The gradients and the running statistics go together, and the rest are counts.
    largest = max(found, key=lambda each: each.size)
    vectors = [each for each in found if any(each.shapes) and each is not largest]
    assert not vectors
    assert len(found) <= 3 < len(exchanged[8, 0])


def test_recomputed_stages_give_the_same_numbers(tiny: Config) -> None:
    tiny.diversification.alpha = 1.0
    outcomes = []
    for remat in (False, True):
        steps = steps_of(tiny, 1, remat=remat, drop_path=0.5, blocks=2)
        state = steps.init()
        for seed in range(2):
            state, record = steps.train(state, batch_of(8, seed=seed))
        outcomes.append((state.variables, record.loss))
    assert by_path(outcomes[0]).keys() == by_path(outcomes[1]).keys()
    assert relative_difference(outcomes[1], outcomes[0]) < 1e-5


def test_of_recomputed_stages_only_the_outputs_are_kept() -> None:
    """The arrays that the backward pass takes; what XLA makes of them on CPUs shows nothing of it."""
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)
    kept = {}
    for remat in (False, True):
        network = small_network(remat=remat, blocks=4)

        def residuals(images: jax.Array, network: Any = network) -> Any:
            variables = network.init(jax.random.key(0), images, train=False)

            def scores(params: Any) -> jax.Array:
                inputs = {**variables, "params": params}
                outputs, _ = network.apply(inputs, images, train=True, mutable=["batch_stats"])
                return outputs.scores

            return jax.vjp(scores, variables["params"])[1]

        # The arrays of the pullback that have a value for each cell.
        leaves = jax.tree.leaves(jax.eval_shape(residuals, images))
        kept[remat] = sum(leaf.size for leaf in leaves if leaf.shape[:1] == (8,))
    of_stage = 8 * 16 * 16 * 8
    assert kept[True] <= images.size + 4 * of_stage < kept[False] / 4, kept

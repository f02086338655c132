"""The heads of other systems: sizes, precision, and what their papers claim of them."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fgr_jax.config import Network
from fgr_jax.errors import UserError
from fgr_jax.losses import gradient_boosting_cross_entropy
from fgr_jax.losses.interface import Objective, Outputs, Targets, of_head
from fgr_jax.models.heads import HEADS
from fgr_jax.models.heads.bcnn import BcnnHead, signed_square_root
from fgr_jax.models.heads.deep_ten import DeepTenHead
from fgr_jax.models.heads.dep import DepHead
from fgr_jax.models.heads.dfl_cnn import DflCnnHead
from fgr_jax.models.heads.encoding import Encoding
from fgr_jax.models.heads.isqrt_cov import (
    IsqrtCovHead,
    covariance,
    matrix_square_root,
    upper_triangle,
)
from fgr_jax.models.heads.layers import unit_norm
from fgr_jax.models.heads.mamc import MamcHead, constraint_loss
from fgr_jax.models.network import parameter_count

CLASSES, CHANNELS = 5, 12
EXCITATION = 128 * 2049 + 2048 * 129  # of MAMC


class WithItself(nn.Module):
    """A head that also takes the features of an earlier stage, here the same."""

    head: nn.Module

    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        outputs: Outputs = self.head(features, train=train, earlier=features)
        return outputs


SMALL: dict[str, nn.Module] = {
    "bcnn": BcnnHead(CLASSES, channels=6),
    "isqrt_cov": IsqrtCovHead(CLASSES, channels=6),
    "deep_ten": DeepTenHead(CLASSES, channels=6, codewords=4),
    "dep": DepHead(CLASSES, codewords=3, factors=4, embedded=7),
}
ALL: dict[str, nn.Module] = {
    **SMALL,
    "dfl_cnn": WithItself(DflCnnHead(CLASSES, filters=2)),
    "mamc": MamcHead(CLASSES, embedded=6),
    "mamc_pooled": MamcHead(CLASSES, embedded=6, pooled=True),
}


ROWS, COLUMNS = 2, 4


def some_features(rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).normal(size=(3, rows, columns, CHANNELS))
    return np.abs(values).astype(np.float32)


@functools.partial(jax.jit, static_argnums=0)
def initial(head: nn.Module, features: jax.Array) -> Any:
    """Variables as the head initializes them."""
    return head.init(jax.random.key(1), features, train=False)


def drawn(head: nn.Module, features: jax.Array) -> Any:
    """Variables with no value at its initial one."""
    rng = np.random.default_rng(2)
    return jax.tree.map(
        lambda leaf: leaf + 0.2 * rng.uniform(size=leaf.shape).astype(np.float32),
        jax.device_get(initial(head, features)),
    )


@functools.partial(jax.jit, static_argnums=0)
def applied(head: nn.Module, variables: Any, features: jax.Array) -> Any:
    """What a head returns in evaluation."""
    return head.apply(variables, features, train=False)


def test_every_head_is_tested() -> None:
    # NTS-Net and TASN have files of their own.
    assert {"cam", "gaussian", "nts", "tasn", *ALL} == set(HEADS)


@pytest.mark.parametrize(
    ("name", "count"),  # for 2048 channels and 200 classes
    [
        ("cam", 200 * 2049),
        ("bcnn", 256 * 2049 + 200 * (256 * 256 + 1)),
        ("isqrt_cov", 256 * (2048 + 2) + 200 * (256 * 257 // 2 + 1)),
        ("deep_ten", 128 * (2048 + 2) + 32 * 129 + 200 * (32 * 128 + 1)),
        (
            "dep",
            2 * 2048 + 8 * 2049 + 64 * (8 * 2048 + 1) + 64 * 2049 + 2 * 64 + 128 * 4097 + 200 * 129,
        ),
        ("mamc", 2 * (EXCITATION + 1024 * (14 * 14 * 2048 + 1)) + 200 * 2049),
        ("mamc_pooled", 2 * (EXCITATION + 1024 * 2049) + 200 * 2049),
    ],
)
def test_parameter_counts(name: str, count: int) -> None:
    head = HEADS[name](Network(), 200)
    features = jax.ShapeDtypeStruct((1, 14, 14, 2048), jnp.float32)
    variables = jax.eval_shape(lambda x: head.init(jax.random.key(0), x, train=False), features)
    assert parameter_count(variables["params"]) == count


@pytest.mark.parametrize("name", ALL)
def test_outputs_have_no_maps_and_the_average_of_the_features(name: str) -> None:
    features = some_features()
    outputs = applied(ALL[name], drawn(ALL[name], features), features)
    assert outputs.scores.shape == (3, CLASSES)
    np.testing.assert_allclose(outputs.features, features.mean((1, 2)), rtol=1e-5)
    assert outputs.maps is None


@pytest.mark.parametrize("name", sorted({*ALL} - {"mamc"}))  # which has weights for each cell
def test_the_order_of_the_cells_does_not_matter(name: str) -> None:
    features = some_features()
    order = np.random.default_rng(0).permutation(ROWS * COLUMNS)
    other = features.reshape(3, -1, CHANNELS)[:, order].reshape(3, COLUMNS, ROWS, CHANNELS)
    variables = drawn(ALL[name], features)
    scores, again = (applied(ALL[name], variables, each).scores for each in (features, other))
    np.testing.assert_allclose(again, scores, rtol=1e-4, atol=1e-5)
    assert np.ptp(scores, axis=0).min() > 1e-3  # and what the cells hold does


@pytest.mark.parametrize("name", SMALL)
def test_the_reduction_alone_is_computed_in_bfloat16(name: str) -> None:
    features = some_features()
    variables = drawn(SMALL[name], features)
    exact = np.asarray(applied(SMALL[name], variables, features).scores)
    head: Any = SMALL[name]
    rounded = applied(head.clone(dtype=jnp.bfloat16), variables, features.astype(jnp.bfloat16))
    assert rounded.scores.dtype == rounded.features.dtype == jnp.float32
    error = np.linalg.norm(rounded.scores - exact) / np.linalg.norm(exact)
    assert 0 < error < 0.02


@pytest.mark.parametrize("name", ["isqrt_cov", "deep_ten", "dep"])
def test_batch_norm_of_a_head_has_its_own_statistics(name: str) -> None:
    features = some_features()
    variables = drawn(SMALL[name], features)
    apply = functools.partial(SMALL[name].apply, train=True, mutable=["batch_stats"])
    _, updated = jax.jit(apply)(variables, features)
    updated = jax.device_get(updated)
    before, after = (jax.tree.leaves(each["batch_stats"]) for each in (variables, updated))
    assert all((one != other).any() for one, other in zip(before, after, strict=True))
    grouped: Any = HEADS[name](Network(norm_group=4), CLASSES)
    assert grouped.norm_group == 4


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_features_that_are_the_same_everywhere_have_finite_gradients(
    name: str, value: float
) -> None:
    """Of which the covariance is 0, and with zeros everything."""
    features = np.full((3, ROWS, COLUMNS, CHANNELS), value, np.float32)
    variables = initial(ALL[name], features)
    params = variables.pop("params")
    for leaf in jax.tree.leaves(gradients_of_squares(ALL[name], params, variables, features)):
        assert np.isfinite(leaf).all()


@functools.partial(jax.jit, static_argnums=0)
def gradients_of_squares(
    head: nn.Module, params: Any, others: Any, features: jax.Array
) -> tuple[Any, jax.Array]:
    def total(params: Any, features: jax.Array) -> jax.Array:
        return jnp.sum(applied(head, {**others, "params": params}, features).scores ** 2)

    return jax.grad(total, (0, 1))(params, features)


@pytest.mark.parametrize("name", ALL)
def test_nan_features_give_nan_scores(name: str) -> None:
    features = some_features()
    variables = drawn(ALL[name], features)
    features[1] = np.nan
    is_nan = np.isnan(applied(ALL[name], variables, features).scores)
    np.testing.assert_array_equal(is_nan, [[False] * CLASSES, [True] * CLASSES, [False] * CLASSES])


def test_bilinear_pooling_does_not_depend_on_the_scale_of_the_reduced_features() -> None:
    features = some_features()
    variables = drawn(SMALL["bcnn"], features)
    variables["params"]["reduction"]["bias"] *= 0
    scores = applied(SMALL["bcnn"], variables, features).scores
    np.testing.assert_allclose(
        applied(SMALL["bcnn"], variables, 7 * features).scores, scores, rtol=1e-4
    )


def test_the_signed_square_root_and_its_bounded_derivative() -> None:
    x = np.array([-9.0, -1e-10, 0.0, 4.0], np.float32)
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(signed_square_root)))(x)
    np.testing.assert_allclose(values, [-3, -1e-5, 0, 2])
    np.testing.assert_allclose(slopes, [1 / 6, 0.5 / np.sqrt(1.01e-8), 5000, 1 / 4], rtol=1e-5)


def test_the_matrix_square_root_is_one() -> None:
    """Five steps approximate it where no eigenvalue is much smaller than the others."""
    factors = np.random.default_rng(0).normal(size=(4, 40, 6)).astype(np.float32)
    matrices = np.einsum("bni,bnj->bij", factors, factors)
    roots = jax.jit(lambda each: [matrix_square_root(each, steps) for steps in (5, 3)])(matrices)
    root, worse = map(np.asarray, roots)
    error = np.linalg.norm(root @ root - matrices, axis=(1, 2))
    assert (error / np.linalg.norm(matrices, axis=(1, 2)) < 0.01).all()
    assert (np.linalg.norm(worse @ worse - matrices, axis=(1, 2)) > 5 * error).all()


def test_the_covariance_is_that_of_the_cells() -> None:
    x = np.random.default_rng(0).normal(size=(2, 15, 4)).astype(np.float32)
    expected = [np.cov(each, rowvar=False, bias=True) for each in x]
    np.testing.assert_allclose(jax.jit(covariance)(x), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_upper_triangle_and_its_gradient(size: int) -> None:
    matrices = np.random.default_rng(0).normal(size=(3, size, size)).astype(np.float32)
    rows, columns = np.triu_indices(size)

    @jax.jit
    def taken_and_pulled_back(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
        taken, pullback = jax.vjp(upper_triangle, matrices)
        return taken, pullback(taken)[0]

    taken, pulled_back = taken_and_pulled_back(matrices)
    np.testing.assert_array_equal(taken, matrices[:, rows, columns])
    expected = np.zeros_like(matrices)
    expected[:, rows, columns] = taken
    np.testing.assert_array_equal(pulled_back, expected)


def test_one_cell_has_no_covariance() -> None:
    features = np.ones((2, 1, 1, CHANNELS), np.float32)
    with pytest.raises(UserError, match=r"^--config\.network\.head=isqrt_cov: .* smaller network"):
        SMALL["isqrt_cov"].init(jax.random.key(0), features, train=False)


def test_an_encoding_adds_up_the_residuals_of_the_nearest_codeword() -> None:
    """Where codewords are far apart."""
    words = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 20.0]], np.float32)
    nearest = np.array([[1, 0, 2, 1], [2, 2, 2, 0]])
    noise = np.random.default_rng(0).normal(size=(2, 4, 2)).astype(np.float32)
    params = {"codewords": words, "smoothing": np.ones(3, np.float32)}
    encodings: Any = jax.jit(Encoding(3).apply)({"params": params}, words[nearest] + noise)
    expected: Any = [
        [noise[image][nearest[image] == word].sum(0) for word in range(3)] for image in range(2)
    ]
    np.testing.assert_allclose(encodings, expected, rtol=1e-4, atol=1e-4)


def test_unit_norms() -> None:
    vectors = np.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0], [np.nan, 1.0]], np.float32)
    expected: Any = [[0.6, 0.8], [0, 0], [1, 0], [np.nan, np.nan]]
    np.testing.assert_allclose(jax.jit(unit_norm)(vectors), expected, rtol=1e-6)


def test_a_filter_bank_has_filters_for_each_class_and_three_scores() -> None:
    head = DflCnnHead(CLASSES, filters=2)
    features, earlier = some_features(), some_features(rows=6, columns=4, seed=1)[..., :7]
    init = jax.jit(functools.partial(head.init_with_output, train=False))
    outputs: Any
    outputs, variables = jax.device_get(init(jax.random.key(0), features, earlier=earlier))
    params = variables["params"]
    kernel, bias = params["filters"]["kernel"][0, 0], params["filters"]["bias"]
    largest = (earlier @ kernel + bias).max((1, 2))
    of_class = [largest[:, 2 * label : 2 * label + 2].mean(1) for label in range(CLASSES)]
    np.testing.assert_allclose(outputs.branches["side"], np.stack(of_class, 1), rtol=1e-5)
    assert params["of_patches"]["kernel"].shape == (2 * CLASSES, CLASSES)
    expected = outputs.branches["global"] + outputs.branches["patches"]
    expected += 0.1 * outputs.branches["side"]
    np.testing.assert_allclose(outputs.scores, expected, rtol=1e-5)


def test_each_score_of_a_filter_bank_has_the_loss_of_the_run() -> None:
    head, labels = DflCnnHead(CLASSES), np.array([1, 0])
    rng = np.random.default_rng(0)
    scores: dict[str, Any] = {
        name: rng.normal(size=(2, CLASSES)).astype(np.float32)
        for name in ("global", "patches", "side")
    }
    zeros: Any = np.zeros((2, CLASSES), np.float32)
    outputs = Outputs(zeros, zeros[:, :1], branches=scores)
    targets = Targets(*jax.device_put((labels, np.ones(2, bool), np.int32(0))))

    def losses(outputs: Outputs, targets: Targets, _: Any) -> jax.Array:
        return gradient_boosting_cross_entropy(outputs.scores, targets.labels, k=2)

    base = Objective(losses, init=lambda _: {"kept": jnp.zeros(1)})
    own = of_head(head, base)
    found = jax.jit(own.losses)(outputs, targets, {})
    loss_of = jax.jit(functools.partial(gradient_boosting_cross_entropy, k=2))
    one, two, side = (np.asarray(loss_of(each, labels)) for each in scores.values())
    np.testing.assert_allclose(found, one + two + 0.1 * side, rtol=1e-6)
    assert own.init is base.init
    assert of_head(DepHead(CLASSES), base) is base


def some_attended(count: int) -> Any:
    return np.random.default_rng(0).normal(size=(count, 2, 4)).astype(np.float32)


CONSTRAINT_LOSS = jax.jit(constraint_loss)


def test_images_that_do_not_count_are_in_no_set() -> None:
    attended = some_attended(6)
    labels, counts = np.array([0, 0, 1, 1, 1, 2]), np.array([True] * 4 + [False] * 2)
    found = CONSTRAINT_LOSS(attended, labels, counts)
    expected = CONSTRAINT_LOSS(attended[:4], labels[:4], counts[:4])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    nothing = jax.jit(jax.grad(constraint_loss))(attended, labels, np.zeros(6, bool))
    assert not np.asarray(nothing).any()


def test_the_constraint_of_mamc_counts_half() -> None:
    attended = some_attended(4)
    labels, counts = np.array([0, 0, 1, 1]), np.ones(4, bool)
    zeros: Any = np.zeros((4, 2), np.float32)
    outputs = Outputs(zeros, zeros[:, :1], branches={"attended": attended})
    targets = Targets(*jax.device_put((labels, counts, np.int32(0))))
    base = Objective(lambda _outputs, targets, _: 3.0 + targets.labels)
    losses = jax.jit(of_head(MamcHead(2), base).losses)(outputs, targets, {})
    constraint = np.asarray(CONSTRAINT_LOSS(attended, labels, counts))
    np.testing.assert_allclose(losses, 3 + labels + 0.5 * constraint, rtol=1e-6)

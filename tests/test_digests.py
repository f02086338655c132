"""Digests of arrays: sensitive to every bit and place, and to nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fgr_jax import digests as lib
from fgr_jax.digests import as_hex, digest_of_tree, digests
from fgr_jax.distributed import batch_sharding, data_mesh

digest = jax.jit(lib.digest)  # compiled as a whole, not operation by operation
DTYPES = (np.uint8, np.int32, np.float32, np.float16, np.bool_)


def murmur(value: int) -> int:
    """MurmurHash3's 32-bit finalizer on Python's integers."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        value ^= value >> shift
        value = value * factor % 2**32
    return value ^ value >> 16


def reference(array: np.ndarray) -> str:
    words = array.reshape(-1).view(f"u{array.dtype.itemsize}").astype(object)
    halves = [
        sum(murmur(int(w) ^ murmur((i + salt) % 2**32)) for i, w in enumerate(words)) % 2**32
        for salt in (0x9E3779B9, 0x85EBCA6B)
    ]
    return "".join(f"{half:08x}" for half in halves)


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray:
    shape = draw(arrays.array_shapes(max_dims=4, max_side=5))
    dtype = draw(st.sampled_from(DTYPES))
    return draw(arrays.arrays(dtype, shape))


@settings(deadline=None, max_examples=40)
@given(any_array())
def test_it_is_what_it_is_said_to_be(array: np.ndarray) -> None:
    assert as_hex(digest(jnp.asarray(array))) == reference(array)


@settings(deadline=None, max_examples=40)
@given(any_array(), st.data())
def test_one_flipped_bit_shows(array: np.ndarray, data: st.DataObject) -> None:
    flipped = array.copy()
    place = data.draw(st.integers(0, array.size - 1))
    if array.dtype == np.bool_:
        flipped.reshape(-1)[place] ^= True
    else:
        bit = data.draw(st.integers(0, 8 * array.dtype.itemsize - 1))
        flipped.reshape(-1).view(f"u{array.dtype.itemsize}")[place] ^= np.array(1 << bit).astype(
            f"u{array.dtype.itemsize}"
        )
    assert as_hex(digest(jnp.asarray(array))) != as_hex(digest(jnp.asarray(flipped)))


@settings(deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_elements_shows(order: list[int]) -> None:
    same = as_hex(digest(jnp.arange(6))) == as_hex(digest(jnp.asarray(order)))
    assert same == (order == sorted(order))


def test_minus_zero_and_the_kinds_of_nan_are_told_apart() -> None:
    values = np.array([0.0, -0.0, np.nan, -np.nan], np.float32)
    assert len({as_hex(digest(jnp.asarray(value))) for value in values}) == 4


@pytest.mark.parametrize("shape", [(16, 3), (8, 5, 7, 3), (24,)])
def test_how_an_array_is_spread_does_not_show(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    spread = jax.device_put(array, batch_sharding(data_mesh()))
    assert len(spread.sharding.device_set) == 8
    assert as_hex(digest(spread)) == as_hex(digest(jnp.asarray(array))) == reference(array)
    assert "all-gather" not in str(digest.lower(spread).compile().as_text())


def test_a_tree_is_its_leaves_in_their_places() -> None:
    one, two = jnp.arange(4.0), jnp.ones((2, 2))
    trees = [
        {"a": one, "b": two},
        {"a": two, "b": one},
        {"a": one, "c": two},
        {"a": one},
        {"a": one, "b": two + 1e-7},
    ]
    assert len({as_hex(digest_of_tree(tree)) for tree in trees}) == len(trees)
    assert as_hex(digest_of_tree({"b": two, "a": one})) == as_hex(digest_of_tree(trees[0]))


def test_the_digests_of_many_arrays_are_in_their_order() -> None:
    shapes = [(3, 4), (12,), (5,), (2, 6), (), (5,)]  # three sizes, mixed
    rng = np.random.default_rng(0)
    many = [rng.integers(0, 200, shape).astype(kind) for kind in DTYPES for shape in shapes]
    of_all = jax.jit(digests)([jnp.asarray(array) for array in many])
    assert [as_hex(each) for each in of_all] == [reference(array) for array in many]


def test_arrays_of_one_size_are_summed_together() -> None:
    tree = [jnp.full((3, 8), number, jnp.float32) for number in range(40)]
    text = str(jax.jit(digest_of_tree).lower(tree).compile().as_text())
    assert 1 <= text.count(" reduce(") <= 4

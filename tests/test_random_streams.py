"""Random streams: functions of seed, name and step, and of nothing else."""

import itertools
import zlib

import jax
import numpy as np
import pytest

from fgr_jax.random_streams import Stream, stream_key, stream_seed


def test_equal_arguments_give_equal_keys_and_others_do_not() -> None:
    arguments = list(itertools.product((0, 1, 2**32 - 1), Stream, (0, 1, 10_000)))
    data = [tuple(np.asarray(jax.random.key_data(stream_key(*a)))) for a in arguments]
    assert len(set(data)) == len(arguments)
    again = [tuple(np.asarray(jax.random.key_data(stream_key(*a)))) for a in arguments]
    assert data == again


def test_a_traced_step_gives_the_same_key() -> None:
    traced = jax.jit(lambda step: jax.random.key_data(stream_key(3, Stream.DIVERSIFICATION, step)))(
        17
    )
    np.testing.assert_array_equal(
        traced, jax.random.key_data(stream_key(3, Stream.DIVERSIFICATION, 17))
    )


def test_the_generator_does_not_follow_jaxs_default() -> None:
    expected = jax.random.key_data(stream_key(0, Stream.DIVERSIFICATION, 5))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(
            jax.random.key_data(stream_key(0, Stream.DIVERSIFICATION, 5)), expected
        )


def test_host_seeds_differ_by_seed_and_name() -> None:
    seeds = {stream_seed(seed, stream) for seed in range(50) for stream in Stream}
    assert len(seeds) == 50 * len(Stream)
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("name", ["parameters", "diversification", "order", "augmentation"])
def test_the_numbers_follow_from_the_names(name: str) -> None:
    """A run draws the same numbers in every version, so names may come but not change."""
    root = jax.random.key(3, impl="threefry2x32")
    key = jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), 17)
    drawn = stream_key(3, Stream(name), 17)
    np.testing.assert_array_equal(jax.random.key_data(drawn), jax.random.key_data(key))
    assert stream_seed(3, Stream(name)) == zlib.crc32(f"3/{name}".encode())

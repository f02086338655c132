"""Random streams: a function of seed, name and step, and of nothing else."""

import itertools

import jax
import numpy as np

from fgr_jax.random_streams import stream_key, stream_seed


def test_equal_arguments_give_equal_keys_and_others_do_not() -> None:
    arguments = list(itertools.product((0, 1, 2**32 - 1), ("order", "mask"), (0, 1, 10_000)))
    data = [tuple(np.asarray(jax.random.key_data(stream_key(*a)))) for a in arguments]
    assert len(set(data)) == len(arguments)
    again = [tuple(np.asarray(jax.random.key_data(stream_key(*a)))) for a in arguments]
    assert data == again


def test_a_traced_step_gives_the_same_key() -> None:
    traced = jax.jit(lambda step: jax.random.key_data(stream_key(3, "mask", step)))(17)
    np.testing.assert_array_equal(traced, jax.random.key_data(stream_key(3, "mask", 17)))


def test_the_generator_does_not_follow_jaxs_default() -> None:
    expected = jax.random.key_data(stream_key(0, "mask", 5))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(jax.random.key_data(stream_key(0, "mask", 5)), expected)


def test_host_seeds_differ_by_seed_and_name() -> None:
    seeds = {stream_seed(seed, name) for seed in range(50) for name in ("order", "augmentation")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)

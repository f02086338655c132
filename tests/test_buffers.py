"""Memory of batches: used again, and never while somebody can still read it."""

import pickle
import threading

import jax
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fgr_jax.input.buffers import ImageBuffers

SHAPE = (2, 8, 8, 3)


def address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_memory_is_used_again_once_it_is_let_go() -> None:
    buffers = ImageBuffers()
    first = buffers.empty(SHAPE)
    where = address(first)
    assert (first.shape, first.dtype) == (SHAPE, np.dtype(np.uint8))
    assert first.flags.c_contiguous
    assert first.flags.writeable
    del first
    others = [
        np.empty(SHAPE, np.uint8) for _ in range(8)
    ]  # which would get what the system has back
    assert address(buffers.empty(SHAPE)) == where
    del others


def test_a_view_holds_it() -> None:
    buffers = ImageBuffers()
    batch = buffers.empty(SHAPE)
    batch[:] = 7
    row = batch[1, 2:]
    del batch
    other = buffers.empty(SHAPE)
    other[:] = 9
    assert (row == 7).all()


def test_jax_holds_it() -> None:
    """On CPUs an array of JAX may be the batch's own memory."""
    buffers = ImageBuffers()
    shape = (64, 64, 64, 3)  # large enough to be computed from while we go on
    kept = []
    for value in range(20):
        batch = buffers.empty(shape)
        batch[:] = value
        on_device = jax.device_put(batch, jax.devices()[0])
        del batch
        kept.append((value, on_device, jax.numpy.sum(on_device, dtype=np.uint32)))
        del on_device
    for value, on_device, total in kept:
        assert (np.asarray(on_device) == value).all()
        assert int(total) == value * np.prod(shape)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([SHAPE, (3, 8, 8, 3)])), max_size=40))
def test_what_is_held_never_overlaps(actions: list[tuple[int, tuple[int, ...]]]) -> None:
    buffers = ImageBuffers()
    held: list[tuple[int, np.ndarray]] = []
    for value, (place, shape) in enumerate(actions):
        if place < len(held):
            held.pop(place)
        batch = buffers.empty(shape)
        assert batch.shape == shape
        batch[:] = value
        held.append((value, batch))
        for expected, each in held:
            assert (each == expected).all()


def test_threads_share_it() -> None:
    buffers = ImageBuffers()
    wrong = []

    def work(value: int) -> None:
        for _ in range(300):
            batch = buffers.empty(SHAPE)
            batch[:] = value
            if not (batch == value).all():
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_another_process_has_its_own() -> None:
    buffers = ImageBuffers()
    where = address(buffers.empty(SHAPE))
    copied = pickle.loads(pickle.dumps(buffers))
    assert address(copied.empty(SHAPE)) != where

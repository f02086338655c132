"""Work in threads: in order, no further ahead than asked for, and errors in their place."""

import threading
import time

import pytest

from fgr_jax.data.read_ahead import map_ahead


@pytest.mark.parametrize(("count", "threads", "ahead"), [(0, 1, 1), (5, 2, 8), (50, 4, 3)])
def test_results_are_in_order_and_bounded(count: int, threads: int, ahead: int) -> None:
    started = 0
    lock = threading.Lock()

    def work(item: int) -> int:
        nonlocal started
        with lock:
            started += 1
        time.sleep(0.002 * (item % 3))
        return -item

    results = []
    for result in map_ahead(work, range(count), threads=threads, ahead=ahead):
        results.append(result)
        time.sleep(0.005)
        assert started <= len(results) + ahead
    assert results == [-item for item in range(count)]


def test_an_error_is_raised_in_the_place_of_its_result() -> None:
    results = map_ahead(lambda item: 6 // item, [3, 2, 0, 1], threads=2, ahead=4)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)

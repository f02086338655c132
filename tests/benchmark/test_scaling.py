"""The arithmetic of the prediction."""

import pytest

from fgr_jax.benchmark.scaling import H100, TPU_V4, Step, predict, smallest_batch

STEP = Step(flops_per_image=98e9, gradient_bytes=95_600_000, small_exchanges=100)


def test_one_chip_exchanges_nothing_and_many_divide_the_work() -> None:
    alone = predict(STEP, TPU_V4, chips=1, batch_size=16)
    assert alone.gradients == alone.small == 0
    assert alone.efficiency == 1
    four = predict(STEP, TPU_V4, chips=4, batch_size=16)
    assert four.compute == pytest.approx(alone.compute / 4)
    assert four.gradients == pytest.approx(2 * 3 / 4 * 95.6e6 / 100e9)
    assert four.total == four.compute + four.gradients + four.small


def test_beyond_a_host_exchanges_are_slower() -> None:
    within, beyond = (predict(STEP, H100, chips=chips, batch_size=16 * chips) for chips in (8, 16))
    assert within.compute == beyond.compute
    assert beyond.small > within.small
    assert beyond.gradients > within.gradients


@pytest.mark.parametrize("chips", [4, 8, 64])
def test_the_smallest_batch_reaches_the_efficiency_and_half_of_it_does_not(chips: int) -> None:
    batch = smallest_batch(STEP, H100, chips=chips, efficiency=0.5)
    assert predict(STEP, H100, chips=chips, batch_size=batch).efficiency >= 0.5
    assert predict(STEP, H100, chips=chips, batch_size=batch // 2).efficiency < 0.5


def test_every_chip_has_whole_groups_of_images() -> None:
    batch = smallest_batch(STEP, TPU_V4, chips=4, efficiency=0.5, images=6)
    assert batch == 4 * 6
    assert smallest_batch(STEP, H100, chips=64, efficiency=0.9, images=6) % (64 * 6) == 0


def test_a_batch_that_cannot_be_spread_is_an_error() -> None:
    with pytest.raises(ValueError, match="16 cannot be spread over 32"):
        predict(STEP, TPU_V4, chips=32, batch_size=16)

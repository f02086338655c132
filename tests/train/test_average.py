"""The moving average of the weights: its values, what uses it, and what is left alone."""

import jax
import numpy as np
import pytest
from networks import by_path
from tiny_step import as_numpy, batch_of, build

from fgr_jax.config import Config
from fgr_jax.models.network import inference_variables


@pytest.fixture
def averaging(tiny: Config) -> Config:
    tiny.network.frozen, tiny.network.width = "stem", 1 / 16
    tiny.optimizer.average = 0.2  # reached after two steps
    return tiny


def test_averages_of_all_variables_in_float64(averaging: Config) -> None:
    steps, state = build(averaging)
    start = by_path(state.variables)
    expected = {path: value.astype(np.float64) for path, value in start.items()}
    for step in range(4):
        state, _ = steps.train(state, batch_of(8, seed=step))
        decay = [1 / 10, 2 / 11, 0.2, 0.2][step]
        for path, value in by_path(state.variables).items():
            expected[path] = decay * expected[path] + (1 - decay) * value
    found = by_path(state.average)
    assert any("batch_stats" in path for path in found)
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=1e-5, atol=1e-7, err_msg=path)
        is_frozen = "classifier" not in path and "layer1" not in path
        assert (found[path].tobytes() == start[path].tobytes()) == is_frozen, path

    averaging.optimizer.average = 0.0
    plain, other = build(averaging)
    for step in range(4):
        other, _ = plain.train(other, batch_of(8, seed=step))
    assert "average" not in other.saved()
    for one, two in zip(as_numpy(state.variables), as_numpy(other.variables), strict=True):
        assert one.tobytes() == two.tobytes()
    # Evaluated is the average.
    batch = {name: rows for name, rows in batch_of(8).items() if name != "symmetry"}
    totals, _ = steps.test(state, batch, steps.zeros())
    as_trained, _ = plain.test(other, batch, plain.zeros())
    of_average, _ = plain.test(other.replace(**state.average), batch, plain.zeros())
    assert float(totals.loss) == float(of_average.loss) != float(as_trained.loss)


def test_variables_of_a_saved_state() -> None:
    trained = {"params": {"a": 1}, "batch_stats": {}}
    average = {"params": {"a": 2}, "batch_stats": {}}
    assert inference_variables({**trained, "step": 3}) == trained
    assert inference_variables({**trained, "average": {}}) == trained
    assert inference_variables({**trained, "average": average}) == average


def test_a_start_is_the_first_average(averaging: Config) -> None:
    steps, state = build(averaging)
    other = jax.tree.map(lambda leaf: leaf + 1, state.variables)
    state = state.starting_from(other)
    for one, two in zip(as_numpy(state.average), as_numpy(other), strict=True):
        np.testing.assert_array_equal(one, two)
    steps.train(state, batch_of(8))  # no array is donated twice

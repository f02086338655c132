"""The forward pass over batches: what it returns, in which order it dispatches, and where."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from networks import random_variables

from fgr_jax.config import Config, Network
from fgr_jax.distributed import batch_sharding, data_mesh, replicated
from fgr_jax.inference.forward import DeviceBatch, HostBatch, compiled, maps_of, padded, stream
from fgr_jax.inference.saved_run import TrainedNetwork
from fgr_jax.losses.interface import Outputs
from fgr_jax.models.network import build_network, forward


@pytest.fixture(scope="module")
def variables() -> Any:
    return random_variables(network(), 32, 32)


def network() -> Any:
    config = Config()
    config.network = Network(depth=18, width=0.125, last_stride=1)
    return build_network(config, 5)


def trained(variables: Any, devices: int) -> tuple[TrainedNetwork, Any]:
    mesh = data_mesh(jax.devices()[:devices])
    return TrainedNetwork(0, network(), jax.device_put(variables, replicated(mesh))), mesh


def images_of(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (*shape, 32, 32, 3), np.uint8)


@jax.jit
def expected_of(variables: Any, images: jax.Array) -> Outputs:
    return forward(network(), variables, images)


@pytest.mark.parametrize("devices", [1, 4])
def test_all_rows_come_back_whatever_the_devices(variables: Any, devices: int) -> None:
    images, classes = images_of(12), np.arange(24, dtype=np.int32).reshape(12, 2) % 5
    expected = jax.device_get(expected_of(variables, images))
    assert expected.maps is not None
    model, mesh = trained(variables, devices)

    def select(outputs: Outputs, batch: DeviceBatch) -> Any:
        assert outputs.maps is not None
        maps = maps_of(outputs.maps, batch["classes"])
        return outputs.scores, maps, outputs.features, None

    run = compiled(model, mesh, select)
    batch = {"image": images, "classes": classes}
    ((note, (scores, maps, features, nothing)),) = stream(run, [("a note", batch)], mesh)
    assert note == "a note"
    assert nothing is None
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features, expected.features, rtol=1e-4, atol=1e-5)
    for row in range(12):
        for place in range(2):
            one = expected.maps[row, :, :, classes[row, place]]
            np.testing.assert_allclose(maps[row, place], one, rtol=1e-4, atol=1e-5)
    on_devices = jax.device_put(batch, batch_sharding(mesh))
    assert run(on_devices)[0].sharding == replicated(mesh)


def test_crops_are_rows_of_their_own(variables: Any) -> None:
    images = images_of(4, 3)
    model, mesh = trained(variables, 2)
    run = compiled(model, mesh, lambda outputs, _: outputs.scores.reshape(-1, 3, 5))
    ((_, scores),) = stream(run, [(None, {"image": images})], mesh)
    expected = expected_of(variables, images.reshape(12, 32, 32, 3)).scores
    np.testing.assert_allclose(scores.reshape(12, 5), expected, rtol=1e-4, atol=1e-5)


def test_the_host_stays_one_batch_ahead() -> None:
    """The results of a batch are waited for only after the next one has been dispatched."""
    events: list[str] = []

    class Result:
        def __init__(self, name: int):
            self._name = name

        def __array__(self, *_: Any, **__: Any) -> Any:
            events.append(f"results of {self._name}")
            return np.asarray(self._name)

    def batches() -> Iterator[tuple[int, HostBatch]]:
        for index in range(3):
            events.append(f"decode {index}")
            yield index, {"image": np.full((1, 2, 2, 3), index, np.uint8)}

    def run(batch: Any) -> Any:
        index = int(batch["image"][0, 0, 0, 0])
        events.append(f"dispatch {index}")
        return Result(index)

    for note, _ in stream(run, batches(), data_mesh(jax.devices()[:1])):
        events.append(f"use {note}")
    order = [event for event in events if not event.startswith("results")]
    assert order == [
        *("decode 0", "dispatch 0", "decode 1", "dispatch 1", "use 0"),
        *("decode 2", "dispatch 2", "use 1", "use 2"),
    ]
    for index in range(2):
        waited = events.index(f"results of {index}")
        assert events.index(f"dispatch {index + 1}") < waited < events.index(f"use {index}")


def test_no_batches_give_no_results() -> None:
    assert list(stream(lambda batch: batch, [], data_mesh(jax.devices()[:1]))) == []


def test_padding_keeps_the_rows() -> None:
    rows = np.arange(12).reshape(3, 2, 2)
    filled = padded(rows, 5)
    np.testing.assert_array_equal(filled[:3], rows)
    assert filled.shape == (5, 2, 2)
    assert not filled[3:].any()

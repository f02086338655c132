"""The eight symmetries of the square, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from symmetries_reference import turned_by_numpy

from fgr_jax.benchmark.compiled import collectives
from fgr_jax.data.augmentation import COUNT, MIRROR, turned
from fgr_jax.distributed import batch_sharding, data_mesh


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(1, 6),
    channels=st.integers(1, 3),
    elements=st.lists(st.integers(0, 7), min_size=1, max_size=9),
    seed=st.integers(0, 99),
)
def test_every_image_is_turned_by_its_own_element(
    size: int, channels: int, elements: list[int], seed: int
) -> None:
    shape = (len(elements), size, size, channels)
    images = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    ours = turned(jnp.asarray(images), jnp.asarray(elements, jnp.int32))
    assert ours.dtype == jnp.uint8
    np.testing.assert_array_equal(ours, turned_by_numpy(images, np.asarray(elements)))


def test_the_elements_are_the_eight_symmetries() -> None:
    image = np.arange(3 * 3 * 3, dtype=np.uint8).reshape(3, 3, 3)
    everywhere = jnp.broadcast_to(image, (COUNT, 3, 3, 3))
    views = np.asarray(turned(everywhere, jnp.arange(COUNT)))
    assert len({view.tobytes() for view in views}) == COUNT
    np.testing.assert_array_equal(views[0], image)
    np.testing.assert_array_equal(views[MIRROR], image[:, ::-1])
    # Closed: turning a symmetry is a symmetry again.
    assert all(np.rot90(view).tobytes() in {v.tobytes() for v in views} for view in views)


def test_nothing_crosses_between_devices() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (16, 8, 8, 3), np.uint8)
    elements = rng.integers(0, COUNT, 16, np.int32)
    sharding = batch_sharding(data_mesh(jax.devices()[:8]))
    compiled = (
        jax.jit(turned, out_shardings=sharding)
        .lower(*jax.device_put((images, elements), sharding))
        .compile()
    )
    assert not collectives(str(compiled.as_text()))
    np.testing.assert_array_equal(
        compiled(*jax.device_put((images, elements), sharding)), turned_by_numpy(images, elements)
    )

"""The filters of DFL-CNN that are computed from features, against their float64 reference."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import kmeans_plusplus
from systems import dfl_filters
from systems.layers import l2_normalize

from fgr_jax.models.heads import clustering, dfl_cnn
from fgr_jax.models.heads.clustering import centers, k_means, strongest_cells
from fgr_jax.models.heads.dfl_cnn import DflCnnHead

CLASSES, FILTERS, CHANNELS = 3, 2, 6


def observed(head: DflCnnHead, features: Any, mask: Any) -> Any:
    return jax.device_get(jax.jit(head.observe)(features, mask, earlier=features))


def filters_of(features: Any, labels: Any, mask: Any, seed: int = 0) -> Any:
    """The kernel `[E, C · k]` that the head computes, and its bias."""
    head = DflCnnHead(CLASSES, FILTERS, param_dtype=jnp.float64)
    kept, sums = observed(head, features, mask)
    by_class = {}
    for label in range(CLASSES):
        of_class = jax.tree.map(lambda leaf, label=label: leaf[labels == label], kept)
        by_class[label] = head.for_class(of_class, np.random.default_rng([seed, label]))
    drawn = {
        "filters": {
            "kernel": np.full((1, 1, CHANNELS, CLASSES * FILTERS), 7.0),
            "bias": np.full(CLASSES * FILTERS, 7.0),
        },
        "linear": 5,
    }
    found = {label: each for label, each in by_class.items() if each is not None}
    params = head.initialized(drawn, found, sums)
    assert params["linear"] == 5
    return params["filters"]["kernel"][0, 0], params["filters"]["bias"]


def test_filters_are_those_of_the_reference() -> None:
    """Peaks, k-means from the same starts, and whitening by all cells of images that count."""
    rng = np.random.default_rng(0)
    features = np.abs(rng.normal(size=(13, 4, 5, CHANNELS))) * rng.uniform(0, 4, (13, 4, 5, 1))
    labels, mask = np.arange(13) % CLASSES, np.arange(13) != 4
    with jax.enable_x64(True):
        kernel, bias = filters_of(features, labels, mask)
    counted, of_counted = features[mask], labels[mask]
    everywhere = l2_normalize(counted).reshape(-1, CHANNELS)
    covariance = np.cov(everywhere.T, bias=True)
    ridge = dfl_cnn._RIDGE * np.trace(covariance) / CHANNELS
    banks = []
    for label in range(CLASSES):
        points = []
        for image in counted[of_counted == label]:
            energy = dfl_filters.energies(image[None])[0]
            cells = dfl_filters.peaks(energy, 1, dfl_cnn._LEAST_NORM)
            assert len(cells) < dfl_cnn._CELLS
            ordered = sorted(cells, key=lambda cell: -energy[cell])
            points += [image[cell] for cell in ordered]
        seed = int(np.random.default_rng([0, label]).integers(2**31))
        unit = l2_normalize(np.stack(points))
        starts, _ = kmeans_plusplus(unit, FILTERS, random_state=seed)
        found = dfl_filters.k_means(unit, starts)
        assert not np.allclose(found, starts, atol=1e-3)
        whitened = dfl_filters.whiten(found, everywhere.mean(0), covariance, ridge)
        banks.append(l2_normalize(whitened))
    np.testing.assert_allclose(kernel, np.concatenate(banks).T, rtol=1e-9, atol=1e-9)
    assert not bias.any()


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_chosen_cells_are_the_peaks_of_the_reference(data: st.DataObject) -> None:
    """Also where norms are equal; of more than N, those with the largest norms are kept."""
    values = data.draw(st.lists(st.sampled_from([0.5, 1, 2, 3]), min_size=20, max_size=20))
    norms = np.array(values).reshape(4, 5)
    features = (np.eye(20) * norms.ravel()).reshape(1, 4, 5, 20)  # no two cells are equal
    peaks = dfl_filters.peaks(dfl_filters.energies(features)[0], 1, 0.4)
    cells, is_chosen = strongest_cells(jnp.asarray(features), 3, 0.4)
    found = [divmod(int(cell.argmax()), 5) for cell in np.asarray(cells[0])[is_chosen[0]]]
    # Of equal norms, the first.
    assert found == sorted(peaks, key=lambda peak: (-norms[peak], peak))[:3]


def test_planted_parts_of_a_class_become_filters_that_respond_to_it_alone() -> None:
    rng = np.random.default_rng(1)
    features = 0.1 * np.abs(rng.normal(size=(12, 4, 4, CHANNELS))).astype(np.float32)
    labels = np.arange(12) % CLASSES
    for image, label in enumerate(labels):
        features[image, 0, 1, 2 * label] += 5 + image
        features[image, 3, 2, 2 * label + 1] += 4 + image
    kernel, _ = filters_of(features, labels, np.ones(12, bool))
    responses = np.eye(CHANNELS) @ kernel
    # The two filters of a class are in the order of k-means' starts.
    best = responses.argmax(0).reshape(CLASSES, FILTERS)
    assert [set(each) for each in best.tolist()] == [{0, 1}, {2, 3}, {4, 5}]


def test_a_class_without_images_keeps_its_filters() -> None:
    features = np.abs(np.random.default_rng(0).normal(size=(6, 3, 3, CHANNELS)))
    kernel, bias = filters_of(features, np.array([0, 2] * 3), np.ones(6, bool))
    assert (kernel[:, 2:4] == 7).all()
    assert bias.tolist() == [0, 0, 7, 7, 0, 0]
    np.testing.assert_allclose(np.linalg.norm(kernel[:, [0, 1, 4, 5]], axis=0), 1, rtol=1e-6)


def test_few_points_are_centers_again_and_again() -> None:
    points = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_array_equal(centers(points, 3, 0), [[0, 1], [1, 0], [0, 1]])


def test_centers_depend_on_the_seed_alone_and_end_where_the_reference_does() -> None:
    points = np.random.default_rng(3).normal(size=(300, 4))
    one, again, other = (centers(points, 5, seed) for seed in (1, 1, 2))
    assert one.tobytes() == again.tobytes()
    assert not np.allclose(np.sort(one, axis=0), np.sort(other, axis=0))
    for found in (one, other):
        np.testing.assert_allclose(dfl_filters.k_means(points, found, 1), found, atol=1e-12)
    np.testing.assert_allclose(
        k_means(points, points[:5]), dfl_filters.k_means(points, points[:5]), atol=1e-9
    )


def test_whitening_of_equal_vectors_is_finite() -> None:
    sums = jax.device_get(clustering.moments(jnp.ones((8, 3)), jnp.ones(8)))
    found = clustering.whitened(np.ones((2, 3)), sums, 0.01)
    assert np.isfinite(found).all()

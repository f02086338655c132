"""Filters for the parts of each class's images, found by clustering.

Wang, Morariu and Davis, "Learning a Discriminative Filter Bank within a CNN for Fine-grained
Recognition", CVPR 2018, §3: the cells of an image with the largest norms, of which no two are next to
each other, are clustered for each class; the centers are whitened (Hariharan, Malik and Ramanan,
"Discriminative Decorrelation for Clustering and Classification", ECCV 2012) and divided by their norm.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import linen as nn

from fgr_jax.losses.ce import at_least_float32
from fgr_jax.models.heads.layers import EXACT

Floats = npt.NDArray[np.float64]


def strongest_cells(features: jax.Array, count: int, least: float) -> tuple[jax.Array, jax.Array]:
    """Chooses the cells of each image with the largest norms (non-maximum suppression).

    A cell is chosen if none of its eight neighbors has a larger norm, and its norm is at least `least`
    times that of the image's largest.

    Args:
      features: `[B, h, w, D]`.
      count: N, the largest number of cells of an image; those with the largest norms are kept.
      least: in [0, 1].

    Returns:
      The cells `[B, N, D]`, and which of them are chosen, bool `[B, N]`.
    """
    x = at_least_float32(features)
    batch, rows, columns, channels = x.shape
    count = min(count, rows * columns)
    norms = jnp.sqrt(jnp.sum(x * x, axis=-1))
    highest = nn.max_pool(norms[..., None], (3, 3), padding="SAME")[..., 0]
    largest = jnp.max(norms, axis=(1, 2), keepdims=True)
    is_peak = (norms >= highest) & (norms >= least * largest)
    ranked = jnp.where(is_peak, norms, -1).reshape(batch, -1)
    found, places = jax.lax.top_k(ranked, count)
    cells = x.reshape(batch, -1, channels)
    return jnp.take_along_axis(cells, places[..., None], axis=1), found >= 0


def moments(vectors: jax.Array, weights: jax.Array) -> dict[str, jax.Array]:
    """Returns the sums that `whitened` needs, of vectors `[N, D]` with weights `[N]` of 0 or 1."""
    weighted = vectors * weights[:, None]
    return {
        "count": jnp.sum(weights),
        "sum": jnp.sum(weighted, axis=0),
        "products": jnp.matmul(weighted.T, vectors, precision=EXACT),
    }


def centers(points: Floats, count: int, seed: int) -> Floats:
    """Clusters points `[N, D]` with k-means, which starts from centers of k-means++.

    Returns:
      `[count, D]`; the points themselves, again and again, if no more than `count` are different.
    """
    # Imported here, since it takes two seconds, and a GPU machine without scikit-learn can time a step.
    import threadpoolctl
    from sklearn.cluster import kmeans_plusplus

    different = np.unique(points, axis=0)
    if len(different) <= count:
        return np.resize(different, (count, points.shape[1]))
    # On several threads, the order of sums is left to chance.
    with threadpoolctl.threadpool_limits(1):
        starts, _ = kmeans_plusplus(points, count, random_state=seed)
        return k_means(points, starts)


def k_means(points: Floats, starts: Floats) -> Floats:
    """Returns the centers `[k, D]` of points `[N, D]` with Lloyd's algorithm, begun at `starts`."""
    from sklearn.cluster import KMeans

    fitted: Any = KMeans(len(starts), init=starts, n_init=1, max_iter=100, tol=0).fit(points)
    return np.asarray(fitted.cluster_centers_)


def whitened(vectors: Floats, sums: dict[str, Floats], ridge: float) -> Floats:
    """Returns (Σ + r·I)⁻¹·(v − μ), divided by its norm, for each of the vectors v, `[N, D]`.

    Args:
      vectors: `[N, D]`.
      sums: the sum of `moments` over all vectors that μ and Σ are the mean and the covariance of.
      ridge: r, in units of the mean variance of an entry.
    """
    mean = sums["sum"] / sums["count"]
    covariance = sums["products"] / sums["count"] - np.outer(mean, mean)
    size = len(mean)
    # More than 0 where all vectors are equal, too.
    regular = covariance + (ridge * np.trace(covariance) / size + 1e-12) * np.eye(size)
    directions = np.linalg.solve(regular, (vectors - mean).T).T
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    return directions / np.where(norms == 0, 1, norms)

"""A float64 reference of the non-random initialization of DFL-CNN's filters, from the paper.

Wang, Morariu, Davis: Learning a Discriminative Filter Bank within a CNN for Fine-grained Recognition,
CVPR 2018, section 3, on layer initialization. For each class: the ℓ2 norm of a cell of its images'
middle features is the cell's energy; non-maximum suppression keeps cells of high energy; k-means of
their features gives k centers; these are whitened and ℓ2-normalized, and are the class's filters.

The paper gives neither the suppression's neighborhood and threshold nor the start of k-means, and no
public code that we know has any of it. Here they are arguments. Whether features are normalized
before they are clustered is one, too: unless they are, cells of high energy draw the centers.

Properties:

- every filter has norm 1; without whitening it is in the cone of its class's features;
- only images of a class matter for its filters, and their order does not; with normalized features
  an image's features may be multiplied by any positive number;
- planted cells of k directions, brighter than all others, give these directions, in the starts' order;
- k-means ends at a fixed point, each center the mean of its points, and the sum of squared distances
  never grows;
- whitening with the identity and mean 0 changes nothing.
"""

import numpy as np
from numpy.typing import NDArray
from systems.layers import Floats, Labels, l2_normalize


def energies(features: Floats) -> Floats:
    """Returns the ℓ2 norm of each cell, [B, h, w], of features [B, h, w, D]."""
    return np.sqrt((features**2).sum(axis=-1))


def peaks(energy: Floats, radius: int = 1, fraction: float = 0.0) -> list[tuple[int, int]]:
    """Returns the cells (i, j) of one map [h, w] that non-maximum suppression keeps, row by row.

    A cell is kept if no cell at most `radius` rows and columns away has a higher energy, and if its
    energy is at least `fraction` of the map's highest.
    """
    height, width = energy.shape
    kept = []
    for i in range(height):
        for j in range(width):
            window = energy[
                max(0, i - radius) : i + radius + 1, max(0, j - radius) : j + radius + 1
            ]
            if energy[i, j] >= window.max() and energy[i, j] >= fraction * energy.max():
                kept.append((i, j))
    return kept


def nearest(points: Floats, centers: Floats) -> NDArray[np.intp]:
    """Returns the index of each point's nearest center, [N]; ties go to the lower index."""
    distances = ((points[:, None, :] - centers[None, :, :]) ** 2).sum(axis=-1)
    return np.argmin(distances, axis=1)


def k_means(points: Floats, centers: Floats, iterations: int = 100) -> Floats:
    """Lloyd's algorithm of points [N, D] from given centers [k, D]: the final centers, [k, D].

    A center without points stays where it is. It ends early where nothing moves.
    """
    for _ in range(iterations):
        owners = nearest(points, centers)
        moved = centers.copy()
        for k in range(len(centers)):
            if np.any(owners == k):
                moved[k] = points[owners == k].mean(axis=0)
        if np.array_equal(moved, centers):
            break
        centers = moved
    return centers


def within_cluster_sum(points: Floats, centers: Floats) -> float:
    """Returns the sum of the squared distances to the nearest center, which k-means minimizes."""
    return float(((points - centers[nearest(points, centers)]) ** 2).sum())


def whiten(filters: Floats, mean: Floats, covariance: Floats, ridge: float = 0.0) -> Floats:
    """Returns (Σ + ridge · I)⁻¹ (f − mean) for each filter f, [k, D].

    The whitening of Hariharan, Malik and Ramanan (ECCV 2012), which makes a center a linear
    discriminant against all cells, whose mean [D] and covariance [D, D] these are.
    """
    regular = covariance + ridge * np.eye(len(mean))
    return np.asarray(np.linalg.solve(regular, (filters - mean).T).T, dtype=np.float64)


def initial_filters(
    features: Floats,
    labels: Labels,
    starts: Floats,
    radius: int = 1,
    fraction: float = 0.0,
    normalized: bool = True,
) -> Floats:
    """Returns the filter bank [D, C · k] of features [B, h, w, D], labels [B] and k-means' starts.

    starts: [C, k, D], where k-means begins. normalized: whether the cells' features are
    ℓ2-normalized before they are clustered; the centers are in any case. Without whitening.
    """
    banks = []
    for c, start in enumerate(starts):
        points = []
        for image in features[labels == c]:
            for i, j in peaks(energies(image[None])[0], radius, fraction):
                points.append(image[i, j])
        cells = np.stack(points)
        centers = k_means(l2_normalize(cells) if normalized else cells, start)
        banks.append(l2_normalize(centers))
    return np.concatenate(banks).T

"""A float64 reference of iSQRT-COV, written from the paper: global covariance pooling with a matrix
square root by Newton–Schulz iterations.

Li, Xie, Wang, Gao: Towards Faster Training of Global Covariance Pooling Networks by Iterative Matrix
Square Root Normalization, CVPR 2018. Sections 3.1 (covariance pooling) and 3.2 (pre-normalization,
coupled iteration, post-compensation), gradients in section 3.3.

The head, of features [B, h, w, D] and N = h · w cells:

1. 1×1 convolution to d = 256 channels, batch normalization, ReLU;
2. covariance Σ = X Ī Xᵀ, X: [d, N], Ī = (I − 11ᵀ / N) / N;
3. pre-normalization A = Σ / tr Σ;
4. Y_0 = A, Z_0 = I; Y_k = ½ Y_{k−1} (3I − Z_{k−1} Y_{k−1}), Z_k = ½ (3I − Z_{k−1} Y_{k−1}) Z_{k−1};
   five iterations;
5. post-compensation C = √(tr Σ) Y_5;
6. the upper triangle with the diagonal, row by row: d (d + 1) / 2 numbers; then a linear layer.

Where the authors' public code (fast-MPN-COV; Hawkeye's MPNCOV) and the paper differ:

- The code's convolution has no bias, which batch normalization would cancel; so has this reference,
  unless `conv_bias` is given. The paper does not mention one.
- The off-diagonal elements of the upper triangle are not multiplied by √2, so its Euclidean norm is
  not the matrix's Frobenius norm. The paper only says that the matrix is symmetric and that its
  upper triangle is concatenated to a vector.
- The code's default is three iterations, the paper's and the code's experiments use five. The first
  and the last iteration are written apart there; the result is the same, and Z_5 is not computed.
- Hawkeye's backward pass transposes the gradient of A once, the authors' does not. Both are the
  exact gradient with respect to X, since the covariance's backward pass symmetrizes.
- Nothing guards against tr Σ = 0, the covariance of a constant map, where the code returns NaN.
  Such features are outside this reference.

Invariances of the pooled vector, of the convolved features X and hence testable after step 1:

- a permutation of the cells changes nothing (orderless), nor does every cell repeated equally often;
- adding one constant vector to every cell changes nothing (centered);
- X multiplied by t > 0 multiplies the vector by t, since the square root of t² Σ is t √Σ;
- a permutation or any orthogonal matrix Q of the channels gives Q C Qᵀ; C is symmetric and positive
  semidefinite, and commutes with Σ;
- C² approaches Σ: with λ an eigenvalue of A, each iteration maps √λ's estimate y to y (3 − y² / λ) / 2,
  so that C's error is largest for small eigenvalues, which five iterations leave too small. Every
  eigenvalue of C is at most the square root of Σ's;
- the gradient with respect to X sums to 0 over the cells.
"""

import math

import numpy as np
from systems.layers import (
    BATCH_NORM_EPSILON,
    Floats,
    Gradients,
    Parameters,
    linear,
    linear_gradient,
    reduction,
    reduction_gradient,
)


def forward(
    features: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    iterations: int = 5,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """Returns the scores [B, C].

    features: [B, h, w, D].
    parameters: `conv_weight` [D, d], `scale` and `bias` [d] of batch normalization,
        `linear_weight` [d (d + 1) / 2, C], `linear_bias` [C]; optionally `conv_bias` [d].
    running: `mean` and `variance` [d] of batch normalization, or None for the batch's statistics.
    iterations: Newton–Schulz iterations, at least 1.
    """
    reduced = reduction(features, parameters, running, epsilon)
    return linear(
        pooled(reduced, iterations), parameters["linear_weight"], parameters["linear_bias"]
    )


def gradient(
    features: Floats,
    parameters: Parameters,
    cotangent: Floats,
    running: Parameters | None = None,
    iterations: int = 5,
    epsilon: float = BATCH_NORM_EPSILON,
) -> tuple[Floats, Gradients]:
    """Returns the gradients of sum(scores * cotangent): of the features and of every parameter.

    cotangent: [B, C]. The other arguments are those of `forward`.
    """
    reduced = reduction(features, parameters, running, epsilon)
    d_vector, d_weight, d_bias = linear_gradient(
        pooled(reduced, iterations), parameters["linear_weight"], cotangent
    )
    d_reduced = pooled_gradient(reduced, d_vector, iterations)
    d_features, gradients = reduction_gradient(features, parameters, d_reduced, running, epsilon)
    return d_features, gradients | {"linear_weight": d_weight, "linear_bias": d_bias}


def pooled(reduced: Floats, iterations: int = 5) -> Floats:
    """Steps 2 to 6: reduced [B, h, w, d] to vectors [B, d (d + 1) / 2]."""
    return np.stack(
        [upper_triangle(square_root(covariance(_cells(image)), iterations)) for image in reduced]
    )


def pooled_gradient(reduced: Floats, cotangent: Floats, iterations: int = 5) -> Floats:
    """Returns the gradient of `pooled` with respect to reduced, [B, h, w, d]."""
    gradients = np.zeros_like(reduced)
    rows, columns = np.triu_indices(reduced.shape[-1])
    for b, image in enumerate(reduced):
        cells = _cells(image)
        d_root = np.zeros((cells.shape[1], cells.shape[1]))
        d_root[rows, columns] = cotangent[b]
        d_sigma = square_root_gradient(covariance(cells), d_root, iterations)
        gradients[b] = covariance_gradient(cells, d_sigma).reshape(image.shape)
    return gradients


def covariance(cells: Floats) -> Floats:
    """Section 3.1: Σ = X Ī Xᵀ, [d, d], of cells [N, d], the rows of which are X's columns."""
    count = cells.shape[0]
    centering = (np.eye(count) - np.ones((count, count)) / count) / count
    return cells.T @ centering @ cells


def covariance_gradient(cells: Floats, cotangent: Floats) -> Floats:
    """Returns the gradient of `covariance`: Ī X (G + Gᵀ), [N, d]; G need not be symmetric."""
    count = cells.shape[0]
    centering = (np.eye(count) - np.ones((count, count)) / count) / count
    return centering @ cells @ (cotangent + cotangent.T)


def newton_schulz(matrix: Floats, iterations: int) -> list[tuple[Floats, Floats]]:
    """Section 3.2, the coupled iteration: [(Y_0, Z_0), …], each [d, d], of A = matrix."""
    identity = np.eye(matrix.shape[0])
    pairs = [(matrix, identity)]
    for _ in range(iterations):
        y, z = pairs[-1]
        middle = 0.5 * (3.0 * identity - z @ y)
        pairs.append((y @ middle, middle @ z))
    return pairs


def square_root(sigma: Floats, iterations: int = 5) -> Floats:
    """Section 3.2: pre-normalization, iteration and post-compensation of Σ, [d, d]."""
    trace = np.trace(sigma)
    return math.sqrt(trace) * newton_schulz(sigma / trace, iterations)[-1][0]


def square_root_gradient(sigma: Floats, cotangent: Floats, iterations: int = 5) -> Floats:
    """Returns the gradient of `square_root`, [d, d].

    It holds for a sigma whose d² elements move independently, symmetric or not. With
    M = ½ (3I − ZY), the outputs Y M and M Z have, for their cotangents G and H, the gradients
    dM = Yᵀ G + H Zᵀ, dY = G Mᵀ − ½ Zᵀ dM and dZ = Mᵀ H − ½ dM Yᵀ.
    """
    trace = np.trace(sigma)
    normalized = sigma / trace
    identity = np.eye(sigma.shape[0])
    pairs = newton_schulz(normalized, iterations)
    d_y = math.sqrt(trace) * cotangent
    d_z = np.zeros_like(d_y)
    for y, z in reversed(pairs[:-1]):
        middle = 0.5 * (3.0 * identity - z @ y)
        d_middle = y.T @ d_y + d_z @ z.T
        d_y, d_z = d_y @ middle.T - 0.5 * z.T @ d_middle, middle.T @ d_z - 0.5 * d_middle @ y.T
    d_trace = (cotangent * pairs[-1][0]).sum() / (2.0 * math.sqrt(trace))
    d_trace -= (d_y * normalized).sum() / trace
    return d_y / trace + d_trace * identity


def exact_square_root(sigma: Floats) -> Floats:
    """Returns the square root of a symmetric positive semidefinite matrix by its eigenvectors."""
    values, vectors = np.linalg.eigh(sigma)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def upper_triangle(matrix: Floats) -> Floats:
    """Step 6: (1, 1), (1, 2), …, (1, d), (2, 2), …, [d (d + 1) / 2], of a matrix [d, d]."""
    size = matrix.shape[0]
    return np.array([matrix[i, j] for i in range(size) for j in range(i, size)])


def _cells(image: Floats) -> Floats:
    return image.reshape(-1, image.shape[-1])

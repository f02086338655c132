"""A float64 reference of the bilinear CNN (B-CNN), written from the paper.

Lin, RoyChowdhury, Maji: Bilinear CNN Models for Fine-grained Visual Recognition, ICCV 2015. Section 3
(bilinear pooling, equations 1 and 2; signed square root and ℓ2 normalization) and section 3.2
(gradients), for the symmetric model, whose two streams are the same network.

The head, of features [B, h, w, D] and N = h · w cells:

1. 1×1 convolution to d = 256 channels;
2. bilinear pooling Σ = X Xᵀ / N, X: [d, N], not centered;
3. signed square root y = sign(x) √|x|, element by element, of all d² elements;
4. ℓ2 normalization of the d² numbers, row by row, as one vector; then a linear layer.

Where public code and the paper differ:

- The paper has no 1×1 convolution: its VGG-M and VGG-D end with 512 channels, whose 512 × 512
  products it keeps. (It projects one stream to 64 dimensions by PCA in an experiment.) The
  convolution brings the head of a 2048-channel backbone to 256² numbers. fast-MPN-COV reduces with a
  convolution without a bias, batch normalization and a ReLU before any second-order pooling.
  `conv_bias`, and `scale` and `bias` for batch normalization and the ReLU, are optional here.
- The paper sums over the cells, the code averages. The ℓ2 normalization cancels the factor, but for
  the next item's ε.
- The derivative of the square root is infinite at 0. fast-MPN-COV takes sign(x) √(|x| + ε) with
  ε = 1e-8, with sign(0) = 0; others have ε = 1e-10. It jumps by 2 √ε at 0, where this reference's
  derivative is 0, and is ε's only task: Hawkeye's B-CNN takes √(x + 1e-5) without a sign, since its
  features follow a ReLU and no product is negative. Hawkeye's differs visibly from the others where
  products are small: 0 becomes 0.003 before the normalization.
- The denominator of the normalization is max(‖y‖, 1e-12), as PyTorch's `normalize`.

Invariances of the normalized vector:

- a permutation of the cells changes nothing (orderless), nor does every cell repeated equally often;
- X multiplied by any t ≠ 0 changes nothing for ε = 0, and as little as ε allows otherwise;
- the sign of all of X's channels flipped changes nothing; of one channel flipped, the signs of its
  row and its column but not of the diagonal flip;
- the d × d matrix is symmetric, its diagonal is not negative, and the vector's norm is 1;
- unlike iSQRT-COV, a constant added to every cell does change it (not centered).
"""

import numpy as np
from systems.layers import (
    BATCH_NORM_EPSILON,
    Floats,
    Gradients,
    Parameters,
    l2_normalize,
    l2_normalize_gradient,
    linear,
    linear_gradient,
    reduction,
    reduction_gradient,
)

ROOT_EPSILON = 1e-8  # of fast-MPN-COV's BCNN


def forward(
    features: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    root_epsilon: float = ROOT_EPSILON,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """Returns the scores [B, C].

    features: [B, h, w, D].
    parameters: `conv_weight` [D, d], `linear_weight` [d², C], `linear_bias` [C]; optionally
        `conv_bias` [d], and `scale` and `bias` [d], which add batch normalization and a ReLU.
    running: `mean` and `variance` [d] of batch normalization, or None for the batch's statistics.
    root_epsilon: ε inside the square root; epsilon: batch normalization's.
    """
    reduced = reduction(features, parameters, running, epsilon)
    return linear(
        pooled(reduced, root_epsilon), parameters["linear_weight"], parameters["linear_bias"]
    )


def gradient(
    features: Floats,
    parameters: Parameters,
    cotangent: Floats,
    running: Parameters | None = None,
    root_epsilon: float = ROOT_EPSILON,
    epsilon: float = BATCH_NORM_EPSILON,
) -> tuple[Floats, Gradients]:
    """Returns the gradients of sum(scores * cotangent): of the features and of every parameter.

    cotangent: [B, C]. The other arguments are those of `forward`.
    """
    reduced = reduction(features, parameters, running, epsilon)
    d_vector, d_weight, d_bias = linear_gradient(
        pooled(reduced, root_epsilon), parameters["linear_weight"], cotangent
    )
    d_reduced = pooled_gradient(reduced, d_vector, root_epsilon)
    d_features, gradients = reduction_gradient(features, parameters, d_reduced, running, epsilon)
    return d_features, gradients | {"linear_weight": d_weight, "linear_bias": d_bias}


def pooled(reduced: Floats, root_epsilon: float = ROOT_EPSILON) -> Floats:
    """Steps 2 to 4: reduced [B, h, w, d] to vectors [B, d²] of norm 1."""
    return l2_normalize(signed_square_root(_products(reduced), root_epsilon))


def pooled_gradient(
    reduced: Floats, cotangent: Floats, root_epsilon: float = ROOT_EPSILON
) -> Floats:
    """Returns the gradient of `pooled` with respect to reduced, [B, h, w, d]."""
    products = _products(reduced)
    d_roots = l2_normalize_gradient(signed_square_root(products, root_epsilon), cotangent)
    d_products = d_roots * signed_square_root_derivative(products, root_epsilon)
    gradients = np.zeros_like(reduced)
    for b, image in enumerate(reduced):
        cells = image.reshape(-1, image.shape[-1])
        matrix = d_products[b].reshape(cells.shape[1], cells.shape[1])
        gradients[b] = (cells @ (matrix + matrix.T) / len(cells)).reshape(image.shape)
    return gradients


def signed_square_root(values: Floats, root_epsilon: float = ROOT_EPSILON) -> Floats:
    """Returns sign(x) √(|x| + ε), 0 at 0."""
    return np.sign(values) * np.sqrt(np.abs(values) + root_epsilon)


def signed_square_root_derivative(values: Floats, root_epsilon: float = ROOT_EPSILON) -> Floats:
    """Returns 1 / (2 √(|x| + ε)), and 0 at x = 0, where the function jumps."""
    return np.where(values == 0.0, 0.0, 0.5 / np.sqrt(np.abs(values) + root_epsilon))


def _products(reduced: Floats) -> Floats:
    """Equations 1 and 2, divided by N: the mean outer product of the cells, [B, d²]."""
    products = []
    for image in reduced:
        cells = image.reshape(-1, image.shape[-1])
        products.append((cells.T @ cells / len(cells)).reshape(-1))
    return np.stack(products)

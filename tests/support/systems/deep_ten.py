"""A float64 reference of Deep-TEN, the texture encoding network, written from the paper.

Zhang, Xue, Dana: Deep TEN: Texture Encoding Network, CVPR 2017. Section 2 (the encoding layer: the
residuals, their soft assignment with a smoothing factor for each codeword, their aggregation) and
its end-to-end learning (gradients); section 3 and table 2 (the network: projection, encoding with 32
codewords, ℓ2 normalization, classifier).

The head, of features [B, h, w, D] and N = h · w cells:

1. 1×1 convolution to d = 128 channels, batch normalization, ReLU;
2. encoding with K = 32 codewords c_k [d] and smoothing factors s_k: residuals r_ik = x_i − c_k,
   assignments a_ik = exp(−s_k ‖r_ik‖²) / Σ_j exp(−s_j ‖r_ij‖²), E_k = Σ_i a_ik r_ik, [K, d];
3. ℓ2 normalization of the K · d numbers, codeword by codeword, as one vector; then a linear layer.

Where public code and the paper differ:

- The paper's table has the projection as a 1×1 convolution. The authors' PyTorch-Encoding adds batch
  normalization and a ReLU, and its convolution has a bias, which batch normalization cancels. Here
  `conv_bias` is optional, and so are `scale` and `bias`, with batch normalization and the ReLU.
- PyTorch-Encoding's `scale` is −s: it takes softmax(scale ‖r‖²) and draws scale from −1 … 0. This
  reference takes the paper's s, which is therefore drawn from 0 … 1. The codewords are drawn from
  ± 1 / √(K d).
- PyTorch-Encoding normalizes the K · d numbers together, with max(‖E‖, 1e-8) as the denominator;
  keras-texture normalizes the d numbers of each codeword for itself, takes softmax(s ‖r‖), with a
  plain distance for the squared one and the opposite sign, and no batch normalization or ReLU.
- The aggregation is a sum over the cells; the normalization cancels a factor 1 / N.

Invariances of the encoding:

- a permutation of the cells changes nothing (orderless); each cell repeated t times multiplies E by t
  and leaves the normalized vector as it is, so that image sizes may vary;
- a vector added to every cell and to every codeword changes nothing;
- all of x, c multiplied by t and s by 1 / t² multiplies E by t;
- codewords and smoothing factors permuted together permute E's rows;
- an orthogonal matrix applied to cells and codewords is applied to E's rows;
- a constant added to all s_k ‖r_ik‖² of a cell changes nothing; equal smoothing factors of 0 assign
  1 / K to each codeword; the assignments of a cell sum to 1;
- K = 1: E = Σ_i x_i − N c, whatever the smoothing factor, whose gradient is 0.
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
    softmax,
)

NORM_EPSILON = 1e-8  # of PyTorch-Encoding's Normalize


def forward(
    features: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """Returns the scores [B, C].

    features: [B, h, w, D].
    parameters: `conv_weight` [D, d], `codewords` [K, d], `smoothing` [K], `linear_weight` [K · d, C],
        `linear_bias` [C]; optionally `conv_bias` [d], and `scale` and `bias` [d], which add batch
        normalization and a ReLU.
    running: `mean` and `variance` [d] of batch normalization, or None for the batch's statistics.
    """
    reduced = reduction(features, parameters, running, epsilon)
    encoded = encodings(reduced, parameters["codewords"], parameters["smoothing"])
    return linear(
        l2_normalize(encoded, NORM_EPSILON), parameters["linear_weight"], parameters["linear_bias"]
    )


def gradient(
    features: Floats,
    parameters: Parameters,
    cotangent: Floats,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> tuple[Floats, Gradients]:
    """Returns the gradients of sum(scores * cotangent): of the features and of every parameter.

    cotangent: [B, C]. The other arguments are those of `forward`.
    """
    reduced = reduction(features, parameters, running, epsilon)
    codewords, smoothing = parameters["codewords"], parameters["smoothing"]
    encoded = encodings(reduced, codewords, smoothing)
    d_vector, d_weight, d_bias = linear_gradient(
        l2_normalize(encoded, NORM_EPSILON), parameters["linear_weight"], cotangent
    )
    d_encoded = l2_normalize_gradient(encoded, d_vector, NORM_EPSILON)
    d_reduced, d_codewords, d_smoothing = encodings_gradient(
        reduced, codewords, smoothing, d_encoded
    )
    d_features, gradients = reduction_gradient(features, parameters, d_reduced, running, epsilon)
    gradients |= {"codewords": d_codewords, "smoothing": d_smoothing}
    return d_features, gradients | {"linear_weight": d_weight, "linear_bias": d_bias}


def encodings(maps: Floats, codewords: Floats, smoothing: Floats) -> Floats:
    """The encoding layer: maps [B, h, w, d], codewords [K, d], smoothing [K] to vectors [B, K · d].

    The vectors hold codeword 0's d numbers first.
    """
    return np.stack(
        [encode(image.reshape(-1, image.shape[-1]), codewords, smoothing) for image in maps]
    ).reshape(len(maps), -1)


def encodings_gradient(
    maps: Floats, codewords: Floats, smoothing: Floats, cotangent: Floats
) -> tuple[Floats, Floats, Floats]:
    """Returns the gradients of `encodings` with respect to maps, codewords and smoothing."""
    d_maps = np.zeros_like(maps)
    d_codewords, d_smoothing = np.zeros_like(codewords), np.zeros_like(smoothing)
    for b, image in enumerate(maps):
        d_cells, d_c, d_s = encode_gradient(
            image.reshape(-1, image.shape[-1]),
            codewords,
            smoothing,
            cotangent[b].reshape(codewords.shape),
        )
        d_maps[b] = d_cells.reshape(image.shape)
        d_codewords += d_c
        d_smoothing += d_s
    return d_maps, d_codewords, d_smoothing


def assignments(cells: Floats, codewords: Floats, smoothing: Floats) -> Floats:
    """Section 2: a_ik = softmax over k of −s_k ‖x_i − c_k‖², [N, K], of cells [N, d]."""
    residuals = cells[:, None, :] - codewords[None, :, :]
    return softmax(-smoothing * (residuals**2).sum(axis=-1))


def encode(cells: Floats, codewords: Floats, smoothing: Floats) -> Floats:
    """Section 2: E_k = Σ_i a_ik (x_i − c_k), [K, d], of cells [N, d]."""
    weights = assignments(cells, codewords, smoothing)
    encoded = np.zeros_like(codewords)
    for i, cell in enumerate(cells):
        for k, codeword in enumerate(codewords):
            encoded[k] += weights[i, k] * (cell - codeword)
    return encoded


def encode_gradient(
    cells: Floats, codewords: Floats, smoothing: Floats, cotangent: Floats
) -> tuple[Floats, Floats, Floats]:
    """Returns the gradients of `encode` with respect to cells, codewords and smoothing.

    With t_ik = −s_k ‖r_ik‖² and the cotangent G [K, d]: da_ik = G_k · r_ik,
    dt_ik = a_ik (da_ik − Σ_j a_ij da_ij), ds_k = −Σ_i dt_ik ‖r_ik‖²,
    dr_ik = a_ik G_k − 2 s_k dt_ik r_ik, dx_i = Σ_k dr_ik and dc_k = −Σ_i dr_ik.
    """
    residuals = cells[:, None, :] - codewords[None, :, :]  # [N, K, d]
    weights = assignments(cells, codewords, smoothing)
    d_weights = (residuals * cotangent).sum(axis=-1)
    d_logits = weights * (d_weights - (weights * d_weights).sum(axis=-1, keepdims=True))
    d_smoothing = -(d_logits * (residuals**2).sum(axis=-1)).sum(axis=0)
    d_residuals = weights[:, :, None] * cotangent
    d_residuals -= 2.0 * (smoothing * d_logits)[:, :, None] * residuals
    return d_residuals.sum(axis=1), -d_residuals.sum(axis=0), d_smoothing

"""A float64 reference of the Deep Encoding Pooling network (DEP), written from the paper.

Xue, Zhang, Dana: Deep Texture Manifold for Ground Terrain Recognition, CVPR 2018. Section 3: the
encoding layer (of Deep-TEN, eight codewords), global average pooling, the bilinear model that joins
them by an outer product (Tenenbaum and Freeman's, with the interaction weights learned by the next
layer), and the classifier.

The head, of features [B, h, w, D], with the normalizations of the authors' code (DEPnet.py of
jiaxue1993/Deep-Encoding-Pooling-Network-DEP-):

1. texture: batch normalization of the features, without a convolution or a ReLU; encoding with K = 8
   codewords [K, D]; ℓ2 normalization of the K · D numbers; linear to 64;
2. pooling: average over the cells; linear to 64; batch normalization over the batch's images;
3. outer product of the two, [B, 64, 64], the pooling branch along the rows; ℓ2 normalization of its
   4096 numbers, row by row;
4. linear to 128; ℓ2 normalization; linear to the classes.

Where public code and the paper differ:

- The paper draws an encoding layer, average pooling, a fully connected layer after each, the
  bilinear model, and a fully connected layer before the classifier; where ℓ2 and batch normalization
  sit is the code's: batch normalization ahead of the encoding layer and behind the pooling branch's
  linear layer (that behind the texture branch's is commented out), ℓ2 normalization (denominator
  max(‖v‖, 1e-8)) behind the encoding layer, the outer product and the 128 numbers. There is no
  nonlinearity but the encoding layer and the normalizations.
- The code has a 7×7 average pooling, which is global at its size of 224 × 224 alone, and is written
  for ResNet-18's 512 channels. With 2048 channels the texture branch's linear layer is four times as
  large, as the encoding layer is not preceded by a reduction.
- The code's encoding layer has −s for the paper's s (see deep_ten.py).
- keras-texture differs: batch normalization ahead of both branches, which end with a ReLU each, as
  do the 128 numbers.

Invariances of the scores:

- a permutation of the cells changes nothing: the average pooling is orderless, too, and what the
  paper calls spatial information is the backbone's;
- each cell repeated t times changes nothing;
- the texture branch's 64 numbers multiplied by t > 0 change nothing, as the outer product is
  normalized; multiplied by −1 they negate it;
- with the batch's statistics, the scale of the pooling branch's linear layer matters as ε allows
  only, and its bias not at all: its gradient is 0;
- the outer product has rank 1 and norm 1.
"""

import numpy as np
from systems.deep_ten import NORM_EPSILON, encodings, encodings_gradient
from systems.layers import (
    BATCH_NORM_EPSILON,
    Floats,
    Gradients,
    Parameters,
    batch_norm,
    batch_norm_gradient,
    l2_normalize,
    l2_normalize_gradient,
    linear,
    linear_gradient,
)


def forward(
    features: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """Returns the scores [B, C]. Here T are the texture branch's and P the pooling branch's numbers.

    features: [B, h, w, D].
    parameters: `texture_scale` and `texture_bias` [D] of batch normalization, `codewords` [K, D],
        `smoothing` [K], `texture_weight` [K · D, T], `texture_linear_bias` [T]; `pool_weight` [D, P],
        `pool_linear_bias` [P], `pool_scale` and `pool_bias` [P] of batch normalization;
        `hidden_weight` [P · T, H], `hidden_bias` [H], `linear_weight` [H, C], `linear_bias` [C].
    running: `texture_mean`, `texture_variance` [D], `pool_mean` and `pool_variance` [P] of batch
        normalization, or None for the batch's statistics.
    """
    product = outer_product(
        texture_branch(features, parameters, running, epsilon),
        pooling_branch(features, parameters, running, epsilon),
    )
    hidden = linear(
        l2_normalize(product, NORM_EPSILON), parameters["hidden_weight"], parameters["hidden_bias"]
    )
    return linear(
        l2_normalize(hidden, NORM_EPSILON), parameters["linear_weight"], parameters["linear_bias"]
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
    gradients: Gradients = {}
    texture = texture_branch(features, parameters, running, epsilon)
    pooled = pooling_branch(features, parameters, running, epsilon)
    product = outer_product(texture, pooled)
    unit_product = l2_normalize(product, NORM_EPSILON)
    hidden = linear(unit_product, parameters["hidden_weight"], parameters["hidden_bias"])

    d_unit_hidden, gradients["linear_weight"], gradients["linear_bias"] = linear_gradient(
        l2_normalize(hidden, NORM_EPSILON), parameters["linear_weight"], cotangent
    )
    d_hidden = l2_normalize_gradient(hidden, d_unit_hidden, NORM_EPSILON)
    d_unit_product, gradients["hidden_weight"], gradients["hidden_bias"] = linear_gradient(
        unit_product, parameters["hidden_weight"], d_hidden
    )
    d_product = l2_normalize_gradient(product, d_unit_product, NORM_EPSILON)
    d_matrix = d_product.reshape(len(product), pooled.shape[1], texture.shape[1])
    d_pooled = (d_matrix * texture[:, None, :]).sum(axis=2)
    d_texture = (d_matrix * pooled[:, :, None]).sum(axis=1)

    # The pooling branch.
    average = features.mean(axis=(1, 2))
    projected = linear(average, parameters["pool_weight"], parameters["pool_linear_bias"])
    d_projected, gradients["pool_scale"], gradients["pool_bias"] = batch_norm_gradient(
        projected, parameters["pool_scale"], d_pooled, *_running(running, "pool"), epsilon
    )
    d_average, gradients["pool_weight"], gradients["pool_linear_bias"] = linear_gradient(
        average, parameters["pool_weight"], d_projected
    )
    cells = features.shape[1] * features.shape[2]
    d_features = np.broadcast_to(d_average[:, None, None, :] / cells, features.shape)

    # The texture branch.
    normalized = batch_norm(
        features,
        parameters["texture_scale"],
        parameters["texture_bias"],
        *_running(running, "texture"),
        epsilon,
    )
    encoded = encodings(normalized, parameters["codewords"], parameters["smoothing"])
    d_unit_encoded, gradients["texture_weight"], gradients["texture_linear_bias"] = linear_gradient(
        l2_normalize(encoded, NORM_EPSILON), parameters["texture_weight"], d_texture
    )
    d_normalized, gradients["codewords"], gradients["smoothing"] = encodings_gradient(
        normalized,
        parameters["codewords"],
        parameters["smoothing"],
        l2_normalize_gradient(encoded, d_unit_encoded, NORM_EPSILON),
    )
    d_inputs, gradients["texture_scale"], gradients["texture_bias"] = batch_norm_gradient(
        features,
        parameters["texture_scale"],
        d_normalized,
        *_running(running, "texture"),
        epsilon,
    )
    return d_features + d_inputs, gradients


def texture_branch(
    features: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """Step 1: batch normalization, encoding, ℓ2 normalization and linear layer, [B, T]."""
    normalized = batch_norm(
        features,
        parameters["texture_scale"],
        parameters["texture_bias"],
        *_running(running, "texture"),
        epsilon,
    )
    encoded = encodings(normalized, parameters["codewords"], parameters["smoothing"])
    return linear(
        l2_normalize(encoded, NORM_EPSILON),
        parameters["texture_weight"],
        parameters["texture_linear_bias"],
    )


def pooling_branch(
    features: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """Step 2: average over the cells, linear layer and batch normalization, [B, P]."""
    projected = linear(
        features.mean(axis=(1, 2)), parameters["pool_weight"], parameters["pool_linear_bias"]
    )
    return batch_norm(
        projected,
        parameters["pool_scale"],
        parameters["pool_bias"],
        *_running(running, "pool"),
        epsilon,
    )


def outer_product(texture: Floats, pooled: Floats) -> Floats:
    """Step 3: element (p, t) is pooled[p] · texture[t], [B, P · T], row by row."""
    return (pooled[:, :, None] * texture[:, None, :]).reshape(len(texture), -1)


def _running(running: Parameters | None, branch: str) -> tuple[Floats | None, Floats | None]:
    if running is None:
        return None, None
    return running[f"{branch}_mean"], running[f"{branch}_variance"]

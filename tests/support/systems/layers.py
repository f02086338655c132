"""Float64 references of the layers that several fine-grained systems share, with their gradients.

Written to test implementations against, with NumPy only. Arrays are channels last. Every
`NAME_gradient` takes the inputs of `NAME` and a cotangent, an array of the shape of its output, and
returns the gradient of sum(output * cotangent) with respect to the inputs, derived by hand.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.integer]
Parameters = Mapping[str, Floats]
Gradients = dict[str, Floats]

BATCH_NORM_EPSILON = 1e-5  # of PyTorch and of the public code of every system here


def linear(inputs: Floats, weight: Floats, bias: Floats | None = None) -> Floats:
    """Returns inputs · weight + bias, [..., E], of inputs [..., D], weight [D, E] and bias [E].

    A 1×1 convolution is this function of a map [B, h, w, D].
    """
    outputs = inputs @ weight
    return outputs if bias is None else outputs + bias


def linear_gradient(
    inputs: Floats, weight: Floats, cotangent: Floats
) -> tuple[Floats, Floats, Floats]:
    """Returns the gradients of `linear` with respect to inputs, weight and bias."""
    rows = inputs.reshape(-1, inputs.shape[-1])
    columns = cotangent.reshape(-1, cotangent.shape[-1])
    return cotangent @ weight.T, rows.T @ columns, columns.sum(axis=0)


def batch_norm(
    inputs: Floats,
    scale: Floats,
    bias: Floats,
    running_mean: Floats | None = None,
    running_variance: Floats | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """Batch normalization (Ioffe and Szegedy 2015, algorithm 1) over every axis but the last.

    inputs: [..., D]; scale, bias and the running statistics: [D]. Given running statistics are used
    (the test form); without them those of the batch are (the training form), the variance being the
    mean squared deviation, without Bessel's correction.
    """
    mean, variance = _statistics(inputs, running_mean, running_variance)
    return (inputs - mean) / np.sqrt(variance + epsilon) * scale + bias


def batch_norm_gradient(
    inputs: Floats,
    scale: Floats,
    cotangent: Floats,
    running_mean: Floats | None = None,
    running_variance: Floats | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> tuple[Floats, Floats, Floats]:
    """Returns the gradients of `batch_norm` with respect to inputs, scale and bias.

    The mean and the variance of a batch depend on the inputs; running statistics are constants.
    """
    axes = tuple(range(inputs.ndim - 1))
    mean, variance = _statistics(inputs, running_mean, running_variance)
    deviation = np.sqrt(variance + epsilon)
    normalized = (inputs - mean) / deviation
    d_scale = (cotangent * normalized).sum(axis=axes)
    d_bias = cotangent.sum(axis=axes)
    d_normalized = cotangent * scale
    if running_mean is None:
        d_normalized = (
            d_normalized
            - d_normalized.mean(axis=axes)
            - normalized * (d_normalized * normalized).mean(axis=axes)
        )
    return d_normalized / deviation, d_scale, d_bias


def l2_normalize(vectors: Floats, epsilon: float = 1e-12) -> Floats:
    """Returns v / max(‖v‖, epsilon) of each vector on the last axis, as PyTorch's `normalize`."""
    norm = np.sqrt((vectors**2).sum(axis=-1, keepdims=True))
    return vectors / np.maximum(norm, epsilon)


def l2_normalize_gradient(vectors: Floats, cotangent: Floats, epsilon: float = 1e-12) -> Floats:
    """Returns the gradient of `l2_normalize` with respect to the vectors."""
    norm = np.sqrt((vectors**2).sum(axis=-1, keepdims=True))
    divisor = np.maximum(norm, epsilon)
    along = (vectors * cotangent).sum(axis=-1, keepdims=True)
    return cotangent / divisor - np.where(norm > epsilon, vectors * along / divisor**3, 0.0)


def reduction(
    features: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """A 1×1 convolution to fewer channels, then batch normalization and a ReLU where they exist.

    features: [B, h, w, D]. parameters: `conv_weight` [D, d], and where present `conv_bias` [d] and
    `scale` and `bias` [d], without which there is neither batch normalization nor a ReLU.
    running: `mean` and `variance` [d], or None for the batch's. Returns [B, h, w, d].
    """
    reduced = linear(features, parameters["conv_weight"], parameters.get("conv_bias"))
    if "scale" not in parameters:
        return reduced
    mean, variance = (running["mean"], running["variance"]) if running else (None, None)
    return np.maximum(
        batch_norm(reduced, parameters["scale"], parameters["bias"], mean, variance, epsilon), 0.0
    )


def reduction_gradient(
    features: Floats,
    parameters: Parameters,
    cotangent: Floats,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> tuple[Floats, Gradients]:
    """Returns the gradients of `reduction` with respect to the features and its parameters.

    The ReLU's derivative at 0 is 0.
    """
    gradients: Gradients = {}
    if "scale" in parameters:
        reduced = linear(features, parameters["conv_weight"], parameters.get("conv_bias"))
        mean, variance = (running["mean"], running["variance"]) if running else (None, None)
        outputs = reduction(features, parameters, running, epsilon)
        cotangent, gradients["scale"], gradients["bias"] = batch_norm_gradient(
            reduced, parameters["scale"], cotangent * (outputs > 0.0), mean, variance, epsilon
        )
    d_features, gradients["conv_weight"], d_conv_bias = linear_gradient(
        features, parameters["conv_weight"], cotangent
    )
    if "conv_bias" in parameters:
        gradients["conv_bias"] = d_conv_bias
    return d_features, gradients


def softmax(logits: Floats) -> Floats:
    """Returns the softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def cross_entropy(logits: Floats, labels: Labels) -> Floats:
    """Returns the cross-entropy of each row, [B], of logits [B, C] and labels [B]."""
    highest = logits.max(axis=-1)
    log_sum = highest + np.log(np.exp(logits - highest[:, None]).sum(axis=-1))
    return log_sum - logits[np.arange(len(labels)), labels]


def cross_entropy_gradient(logits: Floats, labels: Labels) -> Floats:
    """Returns the gradient of each row's cross-entropy with respect to its logits, [B, C]."""
    gradient = softmax(logits)
    gradient[np.arange(len(labels)), labels] -= 1.0
    return gradient


def _statistics(
    inputs: Floats, running_mean: Floats | None, running_variance: Floats | None
) -> tuple[Floats, Floats]:
    if (running_mean is None) != (running_variance is None):
        raise ValueError("give both running statistics or neither")
    if running_mean is not None and running_variance is not None:
        return running_mean, running_variance
    rows = inputs.reshape(-1, inputs.shape[-1])
    return rows.mean(axis=0), rows.var(axis=0)

"""A float64 reference of DFL-CNN, the discriminative filter bank, written from the paper.

Wang, Morariu, Davis: Learning a Discriminative Filter Bank within a CNN for Fine-grained Recognition,
CVPR 2018. Section 3: the asymmetric two-stream architecture (G-stream and P-stream) and the
convolutional filter supervision by cross-channel pooling (the side branch). The non-random
initialization is in dfl_filters.py.

The head, of middle features [B, h, w, D] (conv4 of a ResNet), last features [B, h', w', D'] (conv5),
C classes and k = 10 filters for each class:

1. G-stream: average of the last features over the cells, linear to the classes;
2. filter bank: 1×1 convolution of the middle features to k · C channels, class c's being c · k …
   c · k + k − 1; maximum of each over the cells, [B, k · C];
3. P-stream: linear of the k · C maxima to the classes;
4. side branch: the mean of each class's k maxima, [B, C], without parameters of its own;
5. loss CE(G) + CE(P) + 0.1 CE(side); scores of the prediction G + P + 0.1 side.

Where public code (songdejia/DFL-CNN, and Ien001's version with a ResNet-50) and the paper differ:

- The paper initializes the filters by clustering (dfl_filters.py). songdejia's code draws them at
  random; its README has 85.1 % on CUB against the paper's 87.4, and its users report 57 to 80 %.
  Ien001's version computes a norm of the features, but clusters nothing.
- songdejia's G-stream is a 1×1 convolution to the classes, batch normalization, a ReLU and then the
  average, so that its scores are never negative. Here it is the average and a linear layer, which is
  a ResNet's own head and the paper's for one.
- Its max pooling has the fixed size of the map at 448 × 448; a global maximum is meant.
- Its P-stream's 1×1 convolution of a 1×1 map is a linear layer. There is neither batch normalization
  nor a ReLU behind the filter bank; `scale` and `bias`, which add both, are optional here.
- The order of filters is that of this reference: an average pooling over k neighboring channels.

Invariances:

- a permutation of the middle cells, or of the last ones, changes nothing; cells that are nowhere the
  maximum do not matter, and the gradient of a filter reaches one cell only;
- filters permuted within their class, with the P-stream's rows, change nothing, nor does the side
  branch without these; classes permuted with their filters permute the side branch's scores;
- one constant added to the biases of a class's filters adds it to the class's score of the side
  branch;
- the gradient of one class's score of the side branch is 1 / k for each of its filters' maxima and 0
  for those of the other classes.
"""

import numpy as np
from systems.layers import (
    BATCH_NORM_EPSILON,
    Floats,
    Gradients,
    Labels,
    Parameters,
    cross_entropy,
    cross_entropy_gradient,
    linear,
    linear_gradient,
    reduction,
    reduction_gradient,
)

SIDE_WEIGHT = 0.1  # of the side branch's loss and of its scores in the prediction

Streams = tuple[Floats, Floats, Floats]  # scores of the G-stream, the P-stream and the side branch


def forward(
    middle: Floats,
    last: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Floats:
    """Returns the scores of the prediction, G + P + 0.1 side, [B, C]; arguments as of `streams`."""
    global_scores, part_scores, side_scores = streams(middle, last, parameters, running, epsilon)
    return global_scores + part_scores + SIDE_WEIGHT * side_scores


def gradient(
    middle: Floats,
    last: Floats,
    parameters: Parameters,
    cotangent: Floats,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> tuple[Floats, Floats, Gradients]:
    """Returns the gradients of sum(forward * cotangent), as `streams_gradient` does."""
    cotangents = (cotangent, cotangent, SIDE_WEIGHT * cotangent)
    return streams_gradient(middle, last, parameters, cotangents, running, epsilon)


def streams(
    middle: Floats,
    last: Floats,
    parameters: Parameters,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> Streams:
    """Returns the scores of the G-stream, the P-stream and the side branch, [B, C] each.

    middle: [B, h, w, D]; last: [B, h', w', D'].
    parameters: `conv_weight` [D, C · k] and `conv_bias` [C · k] of the filter bank (and optionally
        `scale` and `bias` [C · k] of batch normalization, followed by a ReLU), `part_weight`
        [C · k, C], `part_bias` [C], `global_weight` [D', C], `global_bias` [C].
    running: `mean` and `variance` [C · k] of batch normalization, or None for the batch's.
    """
    maxima = filter_maxima(reduction(middle, parameters, running, epsilon))
    return (
        linear(last.mean(axis=(1, 2)), parameters["global_weight"], parameters["global_bias"]),
        linear(maxima, parameters["part_weight"], parameters["part_bias"]),
        side_branch(maxima, len(parameters["part_bias"])),
    )


def streams_gradient(
    middle: Floats,
    last: Floats,
    parameters: Parameters,
    cotangents: Streams,
    running: Parameters | None = None,
    epsilon: float = BATCH_NORM_EPSILON,
) -> tuple[Floats, Floats, Gradients]:
    """Returns the gradients of Σ sum(stream * cotangent) over the three streams.

    They are those of the middle features, of the last features, and of every parameter.
    """
    d_global, d_part, d_side = cotangents
    responses = reduction(middle, parameters, running, epsilon)
    maxima = filter_maxima(responses)
    gradients: Gradients = {}

    average = last.mean(axis=(1, 2))
    d_average, gradients["global_weight"], gradients["global_bias"] = linear_gradient(
        average, parameters["global_weight"], d_global
    )
    cells = last.shape[1] * last.shape[2]
    d_last = np.broadcast_to(d_average[:, None, None, :] / cells, last.shape).copy()

    d_maxima, gradients["part_weight"], gradients["part_bias"] = linear_gradient(
        maxima, parameters["part_weight"], d_part
    )
    filters = maxima.shape[1] // d_side.shape[1]
    d_maxima = d_maxima + np.repeat(d_side / filters, filters, axis=1)
    d_responses = filter_maxima_gradient(responses, d_maxima)
    d_middle, d_parameters = reduction_gradient(middle, parameters, d_responses, running, epsilon)
    return d_middle, d_last, gradients | d_parameters


def filter_maxima(responses: Floats) -> Floats:
    """Step 2: the maximum of each filter over the cells, [B, F], of responses [B, h, w, F]."""
    return responses.reshape(len(responses), -1, responses.shape[-1]).max(axis=1)


def filter_maxima_gradient(responses: Floats, cotangent: Floats) -> Floats:
    """Returns the gradient of `filter_maxima`, [B, h, w, F].

    Of several maxima the first in row-major order takes it all, as in PyTorch.
    """
    gradient = np.zeros((len(responses), responses[0, ..., 0].size, responses.shape[-1]))
    for b, image in enumerate(responses):
        cells = image.reshape(-1, image.shape[-1])
        for f in range(cells.shape[1]):
            gradient[b, np.argmax(cells[:, f]), f] = cotangent[b, f]
    return gradient.reshape(responses.shape)


def side_branch(maxima: Floats, classes: int) -> Floats:
    """Step 4, cross-channel pooling: the mean of each class's k maxima, [B, C], of [B, C · k]."""
    return maxima.reshape(len(maxima), classes, -1).mean(axis=2)


def loss(streams: Streams, labels: Labels) -> float:
    """Step 5: the mean over the batch of CE(G) + CE(P) + 0.1 CE(side)."""
    global_scores, part_scores, side_scores = streams
    losses = cross_entropy(global_scores, labels) + cross_entropy(part_scores, labels)
    return float((losses + SIDE_WEIGHT * cross_entropy(side_scores, labels)).mean())


def loss_gradient(streams: Streams, labels: Labels) -> Streams:
    """Returns the gradients of `loss` with respect to the three streams' scores."""
    batch = len(labels)
    return (
        cross_entropy_gradient(streams[0], labels) / batch,
        cross_entropy_gradient(streams[1], labels) / batch,
        SIDE_WEIGHT * cross_entropy_gradient(streams[2], labels) / batch,
    )

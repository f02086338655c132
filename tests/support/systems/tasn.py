"""A float64 reference of TASN, the trilinear attention sampling network, written from the paper.

Zheng, Fu, Zha, Luo: Looking for the Devil in the Details: Learning Trilinear Attention Sampling Network
for Fine-grained Image Recognition, CVPR 2019. Section 3.1 (trilinear attention), section 3.2
(attention-based sampler), section 3.3 (distillation).

The system, of the attention network's features [B, h, w, D], X: [D, N] of an image, N = h · w:

1. trilinear attention M(X) = softmax(softmax(X) Xᵀ) X, [D, N], both softmaxes over rows: that of X
   over the cells, that of the relation [D, D] over the channels; one attention map for each channel;
2. the structure-preserving map is the mean of all maps, the detail-preserving one a map drawn at
   random (training);
3. each map is resized to the image; its marginals are its maxima over each row and over each column,
   divided by their sums; the image is sampled at the inverse of their cumulative sums, so that places of
   high attention are enlarged;
4. the part network sees the detail-preserving sample, the master network the structure-preserving
   one; both are one ResNet-50;
5. the master network is trained by the labels and by the part network's soft scores at temperature
   T = 10: CE + λ Σ −softmax(z_part / T) log softmax(z_master / T).

Where the authors' public code (researchmm/tasn, MXNet) and the paper differ:

- The code multiplies X by 7 in the first softmax ("an appropriate scale"), not in the other factors.
- The attention maps carry no gradient there: sampling trains neither the maps nor the attention
  network, whose loss is a cross-entropy of its own classifier.
- The structure-preserving map is a sum over the channels, in which maps of exactly equal totals count
  once; it is squared after the resizing, which the code calls optional. A factor does not matter.
- At test time the detail-preserving map is the sum of all maps.
- The sampler limits the enlargement, which the paper does not (see `limited`): marginals are cut at
  four times the uniform density, and then cut and raised to the output's size five times.
- Its cumulative sum begins with 1 at the first pixel, whatever the first marginal is, and output 0
  reads the element ahead of the array (see `code_places`); places are interpolated between the pixels'
  cumulative sums. This reference's `places` takes the pixels' edges, which is symmetric.
- λ is 1 with every cross-entropy of part and master network at 0.5, the ratio of the paper's λ = 2.
  The gradient also goes through the part network's soft scores, as nothing stops it. Both networks
  have a classifier each for the distillation and a shared one for the prediction, of weight 0.5.
- The soft cross-entropy is not multiplied by T², as in Hinton's distillation, in either.

Properties:

- each row of the relation sums to 1, so that each map is a convex combination of X's rows: at each
  cell between the smallest and the largest channel; equal channels give equal maps, all X;
- channels permuted permute the maps; cells permuted permute their cells;
- the sampling places never decrease and stay inside the image; uniform marginals give a plain
  resizing; a map multiplied by a positive number changes nothing; a mirrored map and image give a
  mirrored sample (`places`, not the code's);
- an interval with a share of q of the marginal's sum takes a share of q of the output's pixels;
- the distillation's loss is smallest, for given part scores, where the master's differ from them by a
  constant; a constant added to either network's scores of an image changes nothing.
"""

import math

import numpy as np
from systems.layers import Floats, Labels, cross_entropy, cross_entropy_gradient, softmax

TEMPERATURE = 10.0
CODE_SCALE = 7.0  # of the features in the public code's first softmax


def trilinear_attention(features: Floats, scale: float = 1.0) -> Floats:
    """Step 1: the attention maps, [B, h, w, D], of features [B, h, w, D].

    scale: of the features in the first softmax; the paper's is 1, the code's CODE_SCALE.
    """
    maps = np.zeros_like(features)
    for b, image in enumerate(features):
        x = image.reshape(-1, image.shape[-1]).T
        relation = softmax(softmax(scale * x) @ x.T)
        maps[b] = (relation @ x).T.reshape(image.shape)
    return maps


def trilinear_attention_gradient(features: Floats, cotangent: Floats, scale: float = 1.0) -> Floats:
    """Returns the gradient of sum(trilinear_attention * cotangent), [B, h, w, D].

    The public code discards it.
    """
    gradient = np.zeros_like(features)
    for b, image in enumerate(features):
        x = image.reshape(-1, image.shape[-1]).T
        d_maps = cotangent[b].reshape(-1, image.shape[-1]).T
        spatial = softmax(scale * x)
        relation = softmax(spatial @ x.T)
        d_x = relation.T @ d_maps
        d_products = _softmax_gradient(relation, d_maps @ x.T)
        d_x += d_products.T @ spatial
        d_x += scale * _softmax_gradient(spatial, d_products @ x)
        gradient[b] = d_x.T.reshape(image.shape)
    return gradient


def structure_map(maps: Floats) -> Floats:
    """Step 2: the mean of the attention maps over the channels, [B, h, w]."""
    return maps.mean(axis=-1)


def marginals(attention: Floats) -> tuple[Floats, Floats]:
    """Step 3: the maxima of a map [H, W] over each row, [H], and each column, [W]; sums of 1."""
    rows, columns = attention.max(axis=1), attention.max(axis=0)
    return rows / rows.sum(), columns / columns.sum()


def places(marginal: Floats, size: int) -> Floats:
    """Step 3: where each of `size` output pixels is sampled, [size], along one axis.

    marginal: [n], not negative, with a sum of 1. Pixel i's center is at i, its edges at i ± ½; the
    cumulative sum is linear in between, 0 at −½ and 1 at n − ½; the output's pixel o has its center at
    the place where it is (o + ½) / size.
    """
    cumulative = np.concatenate([[0.0], np.cumsum(marginal)])
    result = np.zeros(size)
    for o in range(size):
        target = (o + 0.5) / size * cumulative[-1]
        i = 0
        while cumulative[i + 1] < target:
            i += 1
        result[o] = i - 0.5 + (target - cumulative[i]) / (cumulative[i + 1] - cumulative[i])
    return result


def limited(
    rows: Floats, columns: Floats, size: int, dense: float = 4.0, rounds: int = 5
) -> tuple[Floats, Floats]:
    """Returns the public code's marginals of limited density, with sums of about `size`.

    rows: [n], columns: [n], of a square image, with sums of 1. They are multiplied by `size`. In each
    round both are cut at the lower of their two maxima, in the first round at `dense` · size / n if
    that is lower still, and the same amount is added to each element so that the sum is `size` again.
    """
    rows, columns = rows * size, columns * size
    for n in range(rounds):
        limit = min(rows.max(), columns.max())
        if n == 0:
            limit = min(limit, dense * size / len(rows))
        rows, columns = np.minimum(rows, limit), np.minimum(columns, limit)
        rows = rows + (size - rows.sum()) / len(rows)
        columns = columns + (size - columns.sum()) / len(columns)
    return rows, columns


def code_places(density: Floats, size: int) -> Floats:
    """Returns the public code's places of the output's pixels along one axis, [size].

    density: [n], as `limited` returns it. The cumulative sum is 1 at pixel 0 and grows by density[i]
    up to pixel i; output o is where it is o / size of its last value. Outputs ahead of pixel 0's value
    read memory ahead of the array there and are extrapolated with density[0] here.
    """
    cumulative = np.ones(len(density))
    for i in range(1, len(density)):
        cumulative[i] = cumulative[i - 1] + density[i]
    result = np.zeros(size)
    for o in range(size):
        target = o * cumulative[-1] / size
        i = 0
        while cumulative[i] < target:
            i += 1
        step = cumulative[i] - cumulative[i - 1] if i > 0 else density[0]
        result[o] = i + (target - cumulative[i]) / step
    return result


def sample(image: Floats, rows: Floats, columns: Floats) -> Floats:
    """Step 3: bilinear samples of an image [H, W, C] at rows [h] × columns [w], [h, w, C].

    A place between two pixels' centers is interpolated; one up to half a pixel outside of the outer
    centers takes the outer pixel. (The code's samples fade to 0 outside.)
    """
    outputs = np.zeros((len(rows), len(columns), image.shape[-1]))
    for i, y in enumerate(rows):
        top, low = _split(y, image.shape[0])
        for j, x in enumerate(columns):
            left, near = _split(x, image.shape[1])
            bottom, right = min(top + 1, image.shape[0] - 1), min(left + 1, image.shape[1] - 1)
            upper = image[top, left] * (1.0 - near) + image[top, right] * near
            lower = image[bottom, left] * (1.0 - near) + image[bottom, right] * near
            outputs[i, j] = upper * (1.0 - low) + lower * low
    return outputs


def distillation(master: Floats, part: Floats, temperature: float = TEMPERATURE) -> Floats:
    """Step 5: −Σ softmax(part / T) log softmax(master / T) of each image, [B], of scores [B, C]."""
    scaled = master / temperature
    highest = scaled.max(axis=1, keepdims=True)
    log_p = scaled - highest - np.log(np.exp(scaled - highest).sum(axis=1, keepdims=True))
    return -(softmax(part / temperature) * log_p).sum(axis=1)


def distillation_gradient(
    master: Floats, part: Floats, cotangent: Floats, temperature: float = TEMPERATURE
) -> tuple[Floats, Floats]:
    """Returns the gradients of sum(distillation * cotangent): master's and part's scores'.

    cotangent: [B]. An implementation that takes the part network for a fixed teacher has only the first.
    """
    soft, log_p = softmax(part / temperature), np.log(softmax(master / temperature))
    d_master = (softmax(master / temperature) - soft) / temperature
    d_part = _softmax_gradient(soft, -log_p) / temperature
    return cotangent[:, None] * d_master, cotangent[:, None] * d_part


def loss(
    attention: Floats,
    part: Floats,
    master: Floats,
    labels: Labels,
    distill: float = 2.0,
    temperature: float = TEMPERATURE,
) -> float:
    """Returns the mean over the batch of CE(attention) + CE(part) + CE(master) + λ · distillation.

    attention, part and master: scores [B, C] of the three networks; labels: [B]; distill: λ.
    """
    total = cross_entropy(attention, labels) + cross_entropy(part, labels)
    total = total + cross_entropy(master, labels)
    return float((total + distill * distillation(master, part, temperature)).mean())


def loss_gradient(
    attention: Floats,
    part: Floats,
    master: Floats,
    labels: Labels,
    distill: float = 2.0,
    temperature: float = TEMPERATURE,
    fixed_teacher: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """Returns the gradients of `loss` with respect to the three networks' scores.

    fixed_teacher: whether the distillation's gradient of the part network's scores is left out.
    """
    batch = len(labels)
    weights = np.full(batch, distill / batch)
    d_master, d_part = distillation_gradient(master, part, weights, temperature)
    return (
        cross_entropy_gradient(attention, labels) / batch,
        cross_entropy_gradient(part, labels) / batch + (0.0 if fixed_teacher else 1.0) * d_part,
        cross_entropy_gradient(master, labels) / batch + d_master,
    )


def _softmax_gradient(outputs: Floats, cotangent: Floats) -> Floats:
    """The gradient of a softmax over the last axis, of its outputs and their cotangent."""
    return outputs * (cotangent - (outputs * cotangent).sum(axis=-1, keepdims=True))


def _split(place: float, count: int) -> tuple[int, float]:
    """The pixel at or ahead of a place, which is kept between the outer centers, and the rest."""
    place = min(max(place, 0.0), count - 1.0)
    return math.floor(place), place - math.floor(place)

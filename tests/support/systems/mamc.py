"""A plain float64 reference of MAMC, written from the paper and from no other code of this project.

The paper is M. Sun, Y. Yuan, F. Zhou and E. Ding, "Multi-Attention Multi-Class Constraint for
Fine-grained Image Recognition", ECCV 2018 (arXiv 1806.05372). It has two parts:

* OSME, one-squeeze multi-excitation, equations (1) to (4): P squeeze-and-excitation gates read the same
  pooled map and each gives one attended feature vector of the image.
* MAMC, the multi-attention multi-class constraint, equations (5) to (12): three N-pair losses over the
  attended features of a batch.

The text of the paper could not be opened here. The definitions below are from memory and from a public
summary of the paper that copies its set definitions and losses. Public code calls the N-pair loss
equation (11) and the total loss equation (12). The other numbers are counted back from these two, so
they may be off by one.

Seen from one attended feature, the anchor, every other feature of the batch is in one of four groups
(equation (5)), by whether it has the anchor's attention and whether it has the anchor's class:

* ``sasc``: the same attention and the same class,
* ``sadc``: the same attention and a different class,
* ``dasc``: a different attention and the same class,
* ``dadc``: a different attention and a different class.

The three pairs of a positive set P and a negative set N are

* equation (6): P = sasc and N = sadc, dasc and dadc together,
* equation (7): P = sadc and N = dadc,
* equation (8): P = dasc and N = dadc.

The anchor image's own features of the other attentions are in ``dasc``, as in the paper.

The code is loops over images, attentions, anchors and positives, and every gradient is derived by hand.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
"""An array of float64."""

Integers = npt.NDArray[np.integer]
"""An array of integers."""


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-values)), written so that no exponential overflows."""
    return np.exp(-np.logaddexp(0.0, -values))


def squeeze(features: Floats) -> Floats:
    """Return z of equation (1): the mean of each channel over the cells, [B, D]."""
    mean: Floats = features.mean(axis=(1, 2))
    return mean


def excite(squeezed: Floats, parameters: Mapping[str, Floats], p: int) -> tuple[Floats, Floats]:
    """Return the hidden values before the ReLU, [B, R], and the gate m_p of equation (2), [B, D].

    The gate is m_p = sigmoid(W2 relu(W1 z)), with a bias inside each product where there is one.
    """
    hidden = squeezed @ parameters["squeeze_weight"][p]
    if "squeeze_bias" in parameters:
        hidden = hidden + parameters["squeeze_bias"][p]
    excited = np.maximum(hidden, 0.0) @ parameters["excite_weight"][p]
    if "excite_bias" in parameters:
        excited = excited + parameters["excite_bias"][p]
    return hidden, sigmoid(excited)


def flatten(attended_map: Floats, pooled: bool) -> Floats:
    """Return vec(S_p) of equation (4), [B, h·w·D], or the mean of S_p over the cells, [B, D], if pooled.

    The cells are in row-major order, and the channels of a cell are next to each other.
    """
    if pooled:
        return squeeze(attended_map)
    return attended_map.reshape(attended_map.shape[0], -1)


def attention_features(
    features: Floats, parameters: Mapping[str, Floats], pooled: bool = False
) -> Floats:
    """Return the attended features f_p of equations (1) to (4), [B, P, E].

    ``features`` is the map of the network, [B, h, w, D]. For each attention p, equation (3) scales the
    channels of the map by the gate m_p, and equation (4) multiplies the flattened result by W3.
    """
    squeezed = squeeze(features)
    attended = []
    for p in range(parameters["squeeze_weight"].shape[0]):
        _, gate = excite(squeezed, parameters, p)
        attended_map = features * gate[:, None, None, :]
        feature = flatten(attended_map, pooled) @ parameters["attention_weight"][p]
        if "attention_bias" in parameters:
            feature = feature + parameters["attention_bias"][p]
        attended.append(feature)
    return np.stack(attended, axis=1)


def forward(features: Floats, parameters: Mapping[str, Floats], pooled: bool = False) -> Floats:
    """Return the scores [B, C]: the features f_1 to f_P side by side, through one linear layer."""
    attended = attention_features(features, parameters, pooled)
    scores = attended.reshape(attended.shape[0], -1) @ parameters["linear_weight"]
    if "linear_bias" in parameters:
        scores = scores + parameters["linear_bias"]
    return scores


def gradient(
    features: Floats, parameters: Mapping[str, Floats], cotangent: Floats, pooled: bool = False
) -> tuple[Floats, dict[str, Floats]]:
    """Return the gradients of sum(scores * cotangent) with respect to the map and to each parameter.

    The steps of ``forward`` are taken in the opposite order. The map is reached in two ways: directly,
    where equation (3) scales it, and through its mean z of equation (1), which all the gates read. The
    derivative of the ReLU at zero is taken to be zero.
    """
    batch, height, width, _ = features.shape
    gradients = {name: np.zeros_like(value) for name, value in parameters.items()}
    attended = attention_features(features, parameters, pooled)

    # The linear layer.
    gradients["linear_weight"] = attended.reshape(batch, -1).T @ cotangent
    if "linear_bias" in parameters:
        gradients["linear_bias"] = cotangent.sum(axis=0)
    attended_gradient = (cotangent @ parameters["linear_weight"].T).reshape(attended.shape)

    squeezed = squeeze(features)
    map_gradient = np.zeros_like(features)
    squeezed_gradient = np.zeros_like(squeezed)
    for p in range(attended.shape[1]):
        hidden, gate = excite(squeezed, parameters, p)
        attended_map = features * gate[:, None, None, :]
        feature_gradient = attended_gradient[:, p]

        # Equation (4): f_p = vec(S_p) W3.
        gradients["attention_weight"][p] = flatten(attended_map, pooled).T @ feature_gradient
        if "attention_bias" in parameters:
            gradients["attention_bias"][p] = feature_gradient.sum(axis=0)
        flat_gradient = feature_gradient @ parameters["attention_weight"][p].T
        if pooled:
            per_cell = flat_gradient[:, None, None, :] / (height * width)
            attended_map_gradient = np.broadcast_to(per_cell, features.shape)
        else:
            attended_map_gradient = flat_gradient.reshape(features.shape)

        # Equation (3): S_p = the map with its channels scaled by m_p.
        map_gradient += attended_map_gradient * gate[:, None, None, :]
        gate_gradient = (attended_map_gradient * features).sum(axis=(1, 2))

        # Equation (2): m_p = sigmoid(relu(z W1) W2).
        excited_gradient = gate_gradient * gate * (1.0 - gate)
        gradients["excite_weight"][p] = np.maximum(hidden, 0.0).T @ excited_gradient
        if "excite_bias" in parameters:
            gradients["excite_bias"][p] = excited_gradient.sum(axis=0)
        hidden_gradient = (excited_gradient @ parameters["excite_weight"][p].T) * (hidden > 0.0)
        gradients["squeeze_weight"][p] = squeezed.T @ hidden_gradient
        if "squeeze_bias" in parameters:
            gradients["squeeze_bias"][p] = hidden_gradient.sum(axis=0)
        squeezed_gradient += hidden_gradient @ parameters["squeeze_weight"][p].T

    # Equation (1): z is the mean of the map over its cells.
    map_gradient += squeezed_gradient[:, None, None, :] / (height * width)
    return map_gradient, gradients


def normalize(vectors: Floats) -> Floats:
    """Return each row divided by its L2 norm. A row of zeros has no direction and is not allowed."""
    norms: Floats = np.sqrt((vectors**2).sum(axis=-1, keepdims=True))
    return vectors / norms


def constraint_sets(
    labels: Integers, attentions: int, image: int, p: int, anchor: bool
) -> list[tuple[list[int], list[int]]]:
    """Return the positives and negatives of equations (6), (7) and (8) for one anchor feature.

    The anchor is the feature of attention ``p`` of ``image``. Feature q of image j has the number
    j * attentions + q. The groups of equation (5) are told by equality of class and of attention, so a
    class may have any number of images. The anchor itself is in no group, unless ``anchor`` is true,
    which puts it in ``sasc``.
    """
    sasc: list[int] = []
    sadc: list[int] = []
    dasc: list[int] = []
    dadc: list[int] = []
    for j in range(len(labels)):
        for q in range(attentions):
            if (j, q) == (image, p) and not anchor:
                continue
            same_class = labels[j] == labels[image]
            same_attention = q == p
            if same_attention and same_class:
                group = sasc
            elif same_attention:
                group = sadc
            elif same_class:
                group = dasc
            else:
                group = dadc
            group.append(j * attentions + q)
    return [
        (sasc, sadc + dasc + dadc),  # Equation (6).
        (sadc, dadc),  # Equation (7).
        (dasc, dadc),  # Equation (8).
    ]


def group_losses(
    attended: Floats, labels: Integers, normalized: bool = True, anchor: bool = False
) -> Floats:
    """Return the three sums of equation (11), not divided by anything, in the order sasc, sadc, dasc.

    For each anchor f_a and each positive f⁺ of its set, the sum has the term
    ln(1 + the sum over the negatives f⁻ of exp(f_a·f⁻ − f_a·f⁺)). An anchor without positives adds
    nothing, and a positive without negatives adds ln 1 = 0.
    """
    batch, attentions, size = attended.shape
    vectors = attended.reshape(-1, size)
    if normalized:
        vectors = normalize(vectors)
    sums = np.zeros(3)
    for image in range(batch):
        for p in range(attentions):
            products = vectors @ vectors[image * attentions + p]
            pairs = constraint_sets(labels, attentions, image, p, anchor)
            for group, (positives, negatives) in enumerate(pairs):
                for positive in positives:
                    differences = products[negatives] - products[positive]
                    # ln(1 + sum of exponentials) is a log-sum-exp with one more term, exp(0).
                    sums[group] += np.logaddexp.reduce(np.append(0.0, differences))
    return sums


def constraint_loss(
    attended: Floats,
    labels: Integers,
    divisor: float,
    normalized: bool = True,
    anchor: bool = False,
) -> float:
    """Return the part of equation (12) that is multiplied by λ: the three sums of N-pair losses.

    Equation (11) divides by N, the number of pairs of images. Here the caller gives the ``divisor``.
    """
    return float(group_losses(attended, labels, normalized, anchor).sum() / divisor)


def constraint_loss_gradient(
    attended: Floats,
    labels: Integers,
    divisor: float,
    normalized: bool = True,
    anchor: bool = False,
) -> Floats:
    """Return the gradient of ``constraint_loss`` with respect to the attended features, [B, P, E].

    One term ln(1 + Σ exp(s⁻ − s⁺)), with s⁻ = f_a·f⁻ and s⁺ = f_a·f⁺, has the derivative
    w⁻ = exp(s⁻ − s⁺) / (1 + Σ exp(s⁻ − s⁺)) with respect to s⁻, and minus the sum of the w⁻ with respect
    to s⁺. A product s = f_a·f passes its derivative on to both of its vectors. If f is the anchor,
    both parts go to the same vector, which gives the 2 f_a of the derivative of f_a·f_a.

    For u = f / |f|, a gradient g with respect to u is (g − u (u·g)) / |f| with respect to f.
    """
    batch, attentions, size = attended.shape
    flat = attended.reshape(-1, size)
    vectors = normalize(flat) if normalized else flat
    result = np.zeros_like(vectors)
    for image in range(batch):
        for p in range(attentions):
            own = image * attentions + p
            products = vectors @ vectors[own]
            # The derivatives of all terms of this anchor with respect to the products.
            product_gradient = np.zeros(len(vectors))
            for positives, negatives in constraint_sets(labels, attentions, image, p, anchor):
                for positive in positives:
                    differences = products[negatives] - products[positive]
                    term = np.logaddexp.reduce(np.append(0.0, differences))
                    weights = np.exp(differences - term)
                    product_gradient[negatives] += weights
                    product_gradient[positive] -= weights.sum()
            for other in range(len(vectors)):
                result[own] += product_gradient[other] * vectors[other]
                result[other] += product_gradient[other] * vectors[own]
    if normalized:
        norms = np.sqrt((flat**2).sum(axis=-1, keepdims=True))
        result = (result - vectors * (vectors * result).sum(axis=-1, keepdims=True)) / norms
    return result.reshape(attended.shape) / divisor

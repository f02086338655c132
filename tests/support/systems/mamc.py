"""A float64 reference of OSME and MAMC, multi-attention multi-class constraints, from the paper.

Sun, Yuan, Zhou, Ding: Multi-Attention Multi-Class Constraint for Fine-grained Image Recognition, ECCV
2018. Section 3.1 (one-squeeze multi-excitation, OSME, equations 1 to 4) and section 3.2 (the
multi-attention multi-class constraint, MAMC, equations 5 to 13).

The head, of features U [B, h, w, D] and P = 2 attentions with E = 1024 numbers each:

1. squeeze z = the average of U over the cells, [B, D];
2. excitation m^p = σ(W_2^p max(W_1^p z, 0)), [B, D], with D / 16 numbers between;
3. S^p = U, channel d multiplied by m^p_d;
4. f^p = W_3^p vec(S^p), [B, E]; in the pooled variant the average of S^p instead of vec(S^p);
5. f^1 … f^P concatenated, linear to the classes.

The loss, of the f^p of all images of a batch of N pairs of the same class, 2N · P anchors in all. For
the anchor f_i^p: S_sasc = {f_j^p : j ≠ i, y_j = y_i}, S_sadc = {f_j^p : y_j ≠ y_i},
S_dasc = {f_j^q : q ≠ p, y_j = y_i} (j = i is in it), S_dadc = {f_j^q : q ≠ p, y_j ≠ y_i}; the positives
S_sasc against the negatives S_sadc ∪ S_dasc ∪ S_dadc, and S_sadc and S_dasc against S_dadc, in

    L = 1 / N · Σ over anchors and positives f⁺ of log(1 + Σ over negatives f⁻ of exp(f·f⁻ − f·f⁺)),

which are added, times λ = 0.5, to the cross-entropy.

Where Hawkeye (model/methods/OSME.py, model/loss/MAMC_loss.py) and the paper differ:

- Hawkeye adds the f^p, with 1024 numbers for the classifier, where the paper joins them. Adding them
  is concatenation with the same weights in the linear layer for each attention.
- Hawkeye's f^p are ℓ2-normalized for the loss (not for the classifier). The paper does not say so;
  with products of raw 1024-dimensional features the exponent would be large.
- Hawkeye's S_sasc contains the anchor itself, whose product with itself is 1.
- Hawkeye divides by the number of anchors, B · P, the paper's 1 / N by the number of pairs, B / 2: for
  P = 2 its loss is a quarter of the paper's. λ is 0.5 in both. It smooths the labels by 0.1.
- Its linear layers have biases, which the paper's equations 2 and 4 do not show. All are optional here.
- PyTorch flattens channel by channel; this reference flattens cell by cell, as channels are last.
  The rows of W_3 are permuted accordingly.
- Its batches are n classes with m images each, of which pairs (m = 2) are a case. The paper's N pairs
  may hold a class twice; the sets above go by labels and cover both.
- Parameters: W_3 has h · w · D · E elements for each attention: at 448 × 448 (14 × 14 cells) and
  D = 2048, E = 1024, that is 411.0 million for one, 822.1 million for both. The 434 million that are
  quoted for MAMC are a ResNet-50 with one of them, 23.5 + 411.0; at 224 × 224 (Hawkeye's 7 × 7
  cells), one has 102.8 million.

Invariances:

- pooled variant: a permutation of the cells changes nothing; flattened: it does, unless W_3's rows
  are permuted with it, as m^p does not change;
- attentions permuted, with the blocks of the linear layer's rows, change no score, and never change
  the loss;
- the loss does not depend on the order of the images or on the names of the classes, and is at
  least 0;
- ℓ2-normalized, each image's f^p may be multiplied by any positive number;
- with all features equal and a anchors, each term is log(1 + the number of negatives);
- a batch of one class only has negatives from other attentions of the class alone, in S_sasc's
  term; the others' negatives are empty and their logarithms 0; P = 1 leaves the N-pair loss.
"""

import numpy as np
from numpy.typing import NDArray
from systems.layers import (
    Floats,
    Gradients,
    Labels,
    Parameters,
    l2_normalize,
    l2_normalize_gradient,
    linear,
    linear_gradient,
)

LAMBDA = 0.5  # the weight of the constraint's loss


def forward(features: Floats, parameters: Parameters, pooled: bool = False) -> Floats:
    """Returns the scores [B, C]; arguments as of `attention_features`, and in addition

    parameters: `linear_weight` [P · E, C], attention 0's rows first, and `linear_bias` [C].
    """
    joined = attention_features(features, parameters, pooled).reshape(len(features), -1)
    return linear(joined, parameters["linear_weight"], parameters["linear_bias"])


def gradient(
    features: Floats, parameters: Parameters, cotangent: Floats, pooled: bool = False
) -> tuple[Floats, Gradients]:
    """Returns the gradients of sum(scores * cotangent): of the features and of every parameter."""
    attended = attention_features(features, parameters, pooled)
    d_joined, d_weight, d_bias = linear_gradient(
        attended.reshape(len(features), -1), parameters["linear_weight"], cotangent
    )
    d_features, gradients = attention_features_gradient(
        features, parameters, d_joined.reshape(attended.shape), pooled
    )
    return d_features, gradients | {"linear_weight": d_weight, "linear_bias": d_bias}


def attention_features(features: Floats, parameters: Parameters, pooled: bool = False) -> Floats:
    """Equations 1 to 4: the features of the attentions, [B, P, E].

    features: [B, h, w, D].
    parameters: `squeeze_weight` [P, D, R], `excite_weight` [P, R, D] and `attention_weight`
        [P, h · w · D, E], or [P, D, E] if pooled; optionally `squeeze_bias` [P, R], `excite_bias`
        [P, D] and `attention_bias` [P, E].
    pooled: whether the attended features are averaged over the cells instead of flattened.
    """
    attended = []
    for p in range(len(parameters["squeeze_weight"])):
        _, _, gates = _excite(features, parameters, p)
        scaled = _scaled(features, gates, pooled)
        attended.append(
            linear(scaled, parameters["attention_weight"][p], _bias(parameters, "attention", p))
        )
    return np.stack(attended, axis=1)


def attention_features_gradient(
    features: Floats, parameters: Parameters, cotangent: Floats, pooled: bool = False
) -> tuple[Floats, Gradients]:
    """Returns the gradients of sum(attention_features * cotangent); cotangent: [B, P, E]."""
    gradients = {
        name: np.zeros_like(value)
        for name, value in parameters.items()
        if not name.startswith("linear")
    }
    batch, height, width, channels = features.shape
    average = features.mean(axis=(1, 2))
    d_features = np.zeros_like(features)
    d_average = np.zeros_like(average)
    for p in range(len(parameters["squeeze_weight"])):
        before, hidden, gates = _excite(features, parameters, p)
        d_scaled, d_weight, d_bias = linear_gradient(
            _scaled(features, gates, pooled), parameters["attention_weight"][p], cotangent[:, p]
        )
        _put(gradients, "attention", p, d_weight, d_bias)
        if pooled:
            d_scaled = np.repeat(d_scaled[:, None, :] / (height * width), height * width, axis=1)
        d_scaled = d_scaled.reshape(batch, height, width, channels)
        d_features += d_scaled * gates[:, None, None, :]
        d_gates = (d_scaled * features).sum(axis=(1, 2))
        d_hidden, d_weight, d_bias = linear_gradient(
            hidden, parameters["excite_weight"][p], d_gates * gates * (1.0 - gates)
        )
        _put(gradients, "excite", p, d_weight, d_bias)
        d_part, d_weight, d_bias = linear_gradient(
            average, parameters["squeeze_weight"][p], d_hidden * (before > 0.0)
        )
        _put(gradients, "squeeze", p, d_weight, d_bias)
        d_average += d_part
    return d_features + d_average[:, None, None, :] / (height * width), gradients


def constraint_loss(
    attended: Floats,
    labels: Labels,
    divisor: float,
    normalized: bool = True,
    anchor_is_positive: bool = False,
) -> float:
    """Equations 11 and 12: the sum of the three groups' losses, divided by `divisor`.

    attended: [B, P, E]; labels: [B].
    divisor: the paper's N = B / 2 pairs, or Hawkeye's B · P anchors.
    normalized: whether the features are ℓ2-normalized first, as in Hawkeye.
    anchor_is_positive: whether S_sasc contains the anchor, as in Hawkeye.
    """
    return sum(group_losses(attended, labels, normalized, anchor_is_positive)) / divisor


def group_losses(
    attended: Floats, labels: Labels, normalized: bool = True, anchor_is_positive: bool = False
) -> tuple[float, float, float]:
    """Returns the undivided losses of the three groups of positives: sasc, sadc and dasc."""
    products, groups = _products_and_groups(attended, labels, normalized, anchor_is_positive)
    losses = [0.0, 0.0, 0.0]
    for g, (positives, negatives) in enumerate(groups):
        for a in range(len(products)):
            for positive in np.flatnonzero(positives[a]):
                differences = products[a, negatives[a]] - products[a, positive]
                losses[g] += float(np.log1p(np.exp(differences).sum()))
    return losses[0], losses[1], losses[2]


def constraint_loss_gradient(
    attended: Floats,
    labels: Labels,
    divisor: float,
    normalized: bool = True,
    anchor_is_positive: bool = False,
) -> Floats:
    """Returns the gradient of `constraint_loss` with respect to the attended features, [B, P, E]."""
    products, groups = _products_and_groups(attended, labels, normalized, anchor_is_positive)
    d_products = np.zeros_like(products)
    for positives, negatives in groups:
        for a in range(len(products)):
            for positive in np.flatnonzero(positives[a]):
                powers = np.exp(products[a, negatives[a]] - products[a, positive])
                weights = powers / (1.0 + powers.sum())
                d_products[a, negatives[a]] += weights
                d_products[a, positive] -= weights.sum()
    vectors = attended.reshape(-1, attended.shape[-1])
    used = l2_normalize(vectors) if normalized else vectors
    d_vectors = (d_products + d_products.T) @ used / divisor
    if normalized:
        d_vectors = l2_normalize_gradient(vectors, d_vectors)
    return d_vectors.reshape(attended.shape)


def _products_and_groups(
    attended: Floats, labels: Labels, normalized: bool, anchor_is_positive: bool
) -> tuple[Floats, list[tuple[NDArray[np.bool_], NDArray[np.bool_]]]]:
    """Equations 5 to 10: products [A, A], and each group's positives and negatives, [A, A]."""
    batch, attentions, _ = attended.shape
    vectors = attended.reshape(batch * attentions, -1)
    if normalized:
        vectors = l2_normalize(vectors)
    sets = np.zeros((4, len(vectors), len(vectors)), dtype=np.bool_)  # sasc, sadc, dasc, dadc
    for a in range(len(vectors)):
        for b in range(len(vectors)):
            same_attention = a % attentions == b % attentions
            same_class = labels[a // attentions] == labels[b // attentions]
            if a == b and not anchor_is_positive:
                continue
            sets[(0 if same_attention else 2) + (0 if same_class else 1), a, b] = True
    sasc, sadc, dasc, dadc = sets
    groups = [(sasc, sadc | dasc | dadc), (sadc, dadc), (dasc, dadc)]
    return vectors @ vectors.T, groups


def _excite(features: Floats, parameters: Parameters, p: int) -> tuple[Floats, Floats, Floats]:
    """Equations 1 and 2: before and behind the ReLU, [B, R], and the gates m^p, [B, D]."""
    before = linear(
        features.mean(axis=(1, 2)),
        parameters["squeeze_weight"][p],
        _bias(parameters, "squeeze", p),
    )
    hidden = np.maximum(before, 0.0)
    logits = linear(hidden, parameters["excite_weight"][p], _bias(parameters, "excite", p))
    return before, hidden, 1.0 / (1.0 + np.exp(-logits))


def _scaled(features: Floats, gates: Floats, pooled: bool) -> Floats:
    """Equation 3, flattened cell by cell, [B, h · w · D], or averaged over the cells, [B, D]."""
    scaled = features * gates[:, None, None, :]
    return scaled.mean(axis=(1, 2)) if pooled else scaled.reshape(len(scaled), -1)


def _bias(parameters: Parameters, layer: str, p: int) -> Floats | None:
    biases = parameters.get(f"{layer}_bias")
    return None if biases is None else biases[p]


def _put(gradients: Gradients, layer: str, p: int, d_weight: Floats, d_bias: Floats) -> None:
    gradients[f"{layer}_weight"][p] = d_weight
    if f"{layer}_bias" in gradients:
        gradients[f"{layer}_bias"][p] = d_bias

"""The losses that GCE is compared with (paper, tables 2 and 4), as pure functions.

Where a paper's loss is cross-entropy and a term, the term is here, to be added with its weight; L-GM
has scores of its own. None of them is this paper's: each has its source in its docstring. What
`fgr_jax.losses` says of precision, NaNs and labels holds here too, and no gradient is a scatter,
which GPUs add up in any order: a class's row is looked up by a product with one-hot labels.
"""

import jax
import jax.numpy as jnp

from fgr_jax.losses.gce import at_least_float32, cross_entropy, is_true_class

# A look-up must give the row as it is. By default TPUs multiply in bfloat16, and GPUs in TF32.
_EXACT = jax.lax.Precision.HIGHEST


def entropy(logits: jax.Array) -> jax.Array:
    """H(softmax(s)) in nats. MaxEnt is cross-entropy − γ·H (Dubey et al., NeurIPS 2018).

    Args:
      logits: scores s, `[B, C]`.

    Returns:
      `[B]`, in at least float32; between 0 and ln C.
    """
    log_p = jax.nn.log_softmax(at_least_float32(logits), axis=-1)
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def pairwise_confusion(logits: jax.Array, labels: jax.Array, counts: jax.Array) -> jax.Array:
    """The mean distance ‖p_i − p_j‖₂ of softmax outputs, of pairs of examples of different classes.

    Pairwise confusion is cross-entropy + λ times this (Dubey et al., ECCV 2018). Example i of the
    batch's first half makes a pair with example i of its second half; an odd one out makes none. The
    mean is over the pairs that remain after those of one class are left out, where the authors'
    PyTorch code divides by B: their weight is half of it here, while no pair is left out.

    On several devices the halves are those of the global batch, and rows of p have to travel.

    Args:
      logits: scores s, `[B, C]`.
      labels: int `[B]`.
      counts: bool `[B]`; an example for which it is false makes no pair.

    Returns:
      A number in [0, √2], in at least float32; 0 where there is no pair. Where p_i = p_j the gradient
      is 0.
    """
    half = logits.shape[0] // 2
    first, second = slice(0, half), slice(half, 2 * half)
    p = jax.nn.softmax(at_least_float32(logits), axis=-1)
    is_pair = (labels[first] != labels[second]) & counts[first] & counts[second]
    distances = _norm(p[first] - p[second])
    return jnp.sum(jnp.where(is_pair, distances, 0)) / jnp.maximum(jnp.sum(is_pair), 1)


def center_loss(features: jax.Array, centers: jax.Array, labels: jax.Array) -> jax.Array:
    """½‖x − c_l‖², half the squared distance to the own class's center (Wen et al. 2016, eq. 2).

    Center loss is cross-entropy + λ times this.

    Args:
      features: x, `[B, D]`.
      centers: c, `[C, D]`.
      labels: ground truth l, int `[B]`, in [0, C).

    Returns:
      `[B]`, in at least float32.
    """
    difference = at_least_float32(features) - _own_row(centers, labels)
    return jnp.sum(difference * difference, axis=-1) / 2


def moved_centers(
    features: jax.Array,
    centers: jax.Array,
    labels: jax.Array,
    counts: jax.Array,
    *,
    rate: float,
) -> jax.Array:
    """The centers after a step: c_j − rate · Σ_{l = j}(c_j − x) / (1 + n_j) (Wen et al., eq. 4).

    Args:
      features, centers, labels: see `center_loss`.
      counts: bool `[B]`; an example for which it is false moves nothing.
      rate: 0 leaves the centers where they are; the authors take 0.5.

    Returns:
      `[C, D]`. A class without an example keeps its center to the bit.
    """
    difference = _own_row(centers, labels) - at_least_float32(features)
    difference = jnp.where(counts[:, None], difference, 0)
    members = is_true_class(labels, len(centers)) & counts[:, None]
    total = jnp.matmul(members.T.astype(difference.dtype), difference, precision=_EXACT)
    return centers - rate * total / (1 + jnp.sum(members, axis=0)[:, None])


def gaussian_bias(means: jax.Array) -> jax.Array:
    """−½‖μ_c‖², `[C]`: what a linear score μ_c·x lacks to be −½‖x − μ_c‖² for all purposes.

    −½‖x − μ_c‖² = μ_c·x − ½‖μ_c‖² − ½‖x‖², and the last term is the same for every class.

    Args:
      means: μ, `[C, D]`.
    """
    means = at_least_float32(means)
    return -jnp.sum(means * means, axis=-1) / 2


def large_margin_gaussian_mixture(
    logits: jax.Array,
    features: jax.Array,
    means: jax.Array,
    labels: jax.Array,
    *,
    margin: float,
    likelihood_weight: float,
) -> jax.Array:
    """L-GM with identity covariances and equal priors (Wan et al., CVPR 2018).

    With d = ½‖x − μ_l‖² it is cross-entropy of scores of which the true one is lowered by m·d, plus λ·d.

    Args:
      logits: `[B, C]`, −½‖x − μ_c‖² but for what all classes of an example share: μ_c·x and the
        `gaussian_bias`. The x of the scores may be one with cells suppressed.
      features: the x of d, `[B, D]`.
      means: μ, `[C, D]`.
      labels: ground truth l, int `[B]`, in [0, C).
      margin: m ≥ 0; with 0, and λ = 0, it is cross-entropy to the bit.
      likelihood_weight: λ ≥ 0.

    Returns:
      `[B]`, in at least float32.
    """
    logits = at_least_float32(logits)
    distance = center_loss(features, means, labels)
    is_true = is_true_class(labels, logits.shape[-1])
    with_margin = logits - jnp.where(is_true, margin * distance[:, None], 0)
    return cross_entropy(with_margin, labels) + likelihood_weight * distance


def _own_row(table: jax.Array, labels: jax.Array) -> jax.Array:
    """Row l of `table` `[C, D]` for every label, `[B, D]`. A label that names no class gives NaNs."""
    table = at_least_float32(table)
    is_true = is_true_class(labels, len(table))
    rows = jnp.matmul(is_true.astype(table.dtype), table, precision=_EXACT)
    return jnp.where(jnp.any(is_true, axis=-1, keepdims=True), rows, jnp.nan)


def _norm(vectors: jax.Array) -> jax.Array:
    """‖v‖₂ of each row, `[B]`. At v = 0, where it has no gradient, the gradient is 0."""
    squared = jnp.sum(vectors * vectors, axis=-1)
    is_zero = squared == 0  # not `> 0`: a NaN has to come through
    return jnp.where(is_zero, 0, jnp.sqrt(jnp.where(is_zero, 1, squared)))

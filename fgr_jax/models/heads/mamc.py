"""MAMC: several attentions, whose features are told apart by attention and by class.

Sun, Yuan, Zhou and Ding, "Multi-Attention Multi-Class Constraint for Fine-grained Image Recognition",
ECCV 2018. With U the features `[h, w, D]` of an image, and for each attention p (§3.1):

    z = mean(U),  m_p = σ(W₂·max(W₁·z, 0))
    S_p = U with channel d multiplied by m_pd,  f_p = W₃·vec(S_p)

The scores are linear in f_1 … f_P together. The loss of the run is increased by λ = ½ times (§3.2)

    L = 1/N · Σ_a Σ_{f⁺ ∈ P(a)} ln(1 + Σ_{f⁻ ∈ N(a)} exp(f_a·f⁻ − f_a·f⁺))

over all anchors a, the f_p of all images, for N pairs of images in the batch. With the sets of the
other f_p by attention and class (same or different), positives and negatives are, one after the other,
those of the same attention and class against all others, and each of the two sets that share one of both
with the anchor against the set that shares none. As in public code, each f_p is divided by its norm in
L.
"""

import functools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.diversification import class_scores
from fgr_jax.losses.ce import at_least_float32
from fgr_jax.losses.interface import Extra, Objective, Outputs, Targets
from fgr_jax.models.heads.layers import EXACT, linear, unit_norm

_WEIGHT = 0.5
_RATIO = 16  # of the numbers of channels in an excitation
_NOTHING = -1e30  # the logarithm of a sum without terms, but finite


class MamcHead(nn.Module):
    """Maps features to scores by way of attentions.

    Attributes:
      num_classes: C.
      attentions: P.
      embedded: E, the number of entries of each f_p.
      pooled: whether S_p is averaged over space; otherwise, as in the paper, W₃ has a row for each cell
        and channel.
    """

    num_classes: int
    attentions: int = 2
    embedded: int = 1024
    pooled: bool = False
    param_dtype: Any = jnp.float32

    needs_pairs: ClassVar[bool] = True

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool) -> Outputs:
        """Maps features `[B, h, w, D]` to outputs, whose branch "attended" is f, `[B, P, E]`."""
        del train
        rows, columns, channels = features.shape[1:]
        average = class_scores(features)
        x = at_least_float32(features)
        layer = functools.partial(linear, param_dtype=self.param_dtype)
        attended = []
        for p in range(self.attentions):
            hidden = nn.relu(layer(max(1, channels // _RATIO), name=f"squeeze_{p}")(average))
            weights = nn.sigmoid(layer(channels, name=f"excite_{p}")(hidden))
            if self.pooled:
                vector = average * weights
            else:
                vector = (x * weights[:, None, None, :]).reshape(-1, rows * columns * channels)
            attended.append(layer(self.embedded, name=f"attend_{p}")(vector))
        f = jnp.stack(attended, axis=1)
        joined = f.reshape(-1, self.attentions * self.embedded)
        scores = layer(self.num_classes, name="linear")(joined)
        return Outputs(scores, average, branches={"attended": f})

    def objective(self, base: Objective) -> Objective:
        """Returns an objective with λ·L added; L is one number for the batch."""

        def losses(outputs: Outputs, targets: Targets, extra: Extra) -> jax.Array:
            assert outputs.branches is not None
            constraint = constraint_loss(outputs.branches["attended"], targets.labels, targets.mask)
            return base.losses(outputs, targets, extra) + _WEIGHT * constraint

        return base._replace(losses=losses)


def constraint_loss(attended: jax.Array, labels: jax.Array, counts: jax.Array) -> jax.Array:
    """Computes L, a scalar.

    On several devices the sets are those of the global batch, so rows of f are exchanged.

    Args:
      attended: f, `[B, P, E]`.
      labels: int `[B]`.
      counts: bool `[B]`; images for which it is false are in no set. Half of the others are N.
    """
    images, attentions, size = attended.shape
    f = unit_norm(attended).reshape(images * attentions, size)
    products = jnp.matmul(f, f.T, precision=EXACT)
    attention = jnp.tile(jnp.arange(attentions), images)
    label, used = jnp.repeat(labels, attentions), jnp.repeat(counts, attentions)
    others = used[:, None] & used & ~jnp.eye(len(f), dtype=bool)
    of_class = label[:, None] == label
    of_attention = attention[:, None] == attention
    of_both, of_none = of_class & of_attention, ~of_class & ~of_attention
    total = jnp.zeros((), products.dtype)
    for positive, negative in (
        (of_both, ~of_both),
        (of_attention & ~of_class, of_none),
        (of_class & ~of_attention, of_none),
    ):
        negatives = jnp.where(others & negative, products, _NOTHING)
        exponents = jax.nn.logsumexp(negatives, axis=1, keepdims=True) - products
        total += jnp.sum(jnp.where(others & positive, jax.nn.softplus(exponents), 0))
    return total / jnp.maximum(jnp.sum(counts) / 2, 1).astype(products.dtype)


def from_config(network: Network, num_classes: int, *, pooled: bool = False) -> MamcHead:
    """Builds the head for the config's section `network`."""
    del network
    return MamcHead(num_classes, pooled=pooled)

"""Vision transformers (Dosovitskiy et al., An image is worth 16×16 words, 2021), with timm's names.

Those of DINOv2 (Oquab et al. 2024) scale the residual branches, and some have registers (Darcet et al.,
Vision transformers need registers, 2024). The features are the patch tokens.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from fgr_jax.config import Network
from fgr_jax.models.backbones.convolution import Convolution
from fgr_jax.models.backbones.drop_path import drop_path
from fgr_jax.models.backbones.interface import Backbone, Hub, licensed, refuse_last_stride
from fgr_jax.models.backbones.products import Dense
from fgr_jax.models.weights import table as files
from fgr_jax.models.weights.table import Row, Table

_KERNEL_INIT = nn.initializers.normal(0.02)
_TOKEN_INIT = nn.initializers.normal(1e-6)
_LAYER_SCALE_INIT = 1e-5
_HEAD_CHANNELS = 64

# Blocks and attention heads.
SIZES: Mapping[str, tuple[int, int]] = {"small": (12, 6), "base": (12, 12), "large": (24, 16)}


class Block(nn.Module):
    """Self-attention and a perceptron of two layers, each normalized before and with a shortcut."""

    heads: int
    layer_scale: bool
    norm: Callable[..., Any]
    dense: Callable[..., Any]
    param_dtype: Any
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens `[B, N, D]` to tokens of the same shape."""
        channels = x.shape[-1]
        y = self.dense(3 * channels, name="attn_qkv")(self.norm(name="norm1")(x))
        y = _attention(y.reshape(*x.shape[:2], 3, self.heads, -1)).reshape(x.shape)
        x = x + self._branch("ls1", self.dense(channels, name="attn_proj")(y))
        y = self.dense(4 * channels, name="mlp_fc1")(self.norm(name="norm2")(x))
        y = self.dense(channels, name="mlp_fc2")(nn.gelu(y, approximate=False))
        return x + self._branch("ls2", y)

    def _branch(self, name: str, y: jax.Array) -> jax.Array:
        if self.layer_scale:
            initial = nn.initializers.constant(_LAYER_SCALE_INIT)
            gamma = self.param(f"{name}_gamma", initial, (y.shape[-1],), self.param_dtype)
            y = gamma.astype(y.dtype) * y
        return drop_path(self, y, self.drop_rate)


def _attention(qkv: jax.Array) -> jax.Array:
    """Maps queries, keys and values `[B, N, 3, heads, D]` to `[B, N, heads, D]`.

    The softmax is computed in at least float32. `jax.nn.dot_product_attention` would reduce float64 to
    float32.
    """
    queries, keys, values = (qkv[:, :, index] for index in range(3))
    scale = queries.shape[-1] ** -0.5
    dtype = jnp.promote_types(qkv.dtype, jnp.float32)
    logits = jnp.einsum("bqhd,bkhd->bhqk", scale * queries, keys, preferred_element_type=dtype)
    return jnp.einsum("bhqk,bkhd->bqhd", nn.softmax(logits).astype(qkv.dtype), values)


class ViT(Backbone):
    """A backbone up to and including the last LayerNorm.

    The position embeddings are for the size of the images that the parameters are initialized with.

    Attributes:
      patch_size: the side of a patch in pixels.
      depth: the number of blocks.
      heads: the number of attention heads.
      channels: D.
      layer_scale: whether the outputs of attention and perceptrons are scaled.
      registers: the number of register tokens. With any, the class token has no position embedding.
    """

    patch_size: int
    depth: int
    heads: int
    channels: int
    layer_scale: bool = False
    registers: int = 0

    stages = ("embedding", "blocks1", "blocks2", "blocks3", "blocks4", "last_norm")
    table: ClassVar[Table] = (
        Row(r"backbone/patch_embed_proj", r"patch_embed.proj", files.CONVOLUTION),
        Row(r"backbone/((?:cls|reg)_token)", r"\1", files.PARAMETER),
        Row(r"backbone/(pos_embed)", r"\1", files.POSITIONS),
        Row(r"backbone/blocks_(\d+)/(norm\d)", r"blocks.\1.\2", files.NORM),
        Row(r"backbone/blocks_(\d+)/(attn|mlp)_(\w+)", r"blocks.\1.\2.\3", files.DENSE),
        Row(r"backbone/blocks_(\d+)/(ls\d)_gamma", r"blocks.\1.\2.gamma", files.PARAMETER),
        Row(r"backbone/(norm)", r"\1", files.NORM),
        Row(r"classifier", r"head", files.CLASSIFIER),
    )

    @property
    def stride(self) -> int:
        """The number of pixels from one cell of the features to the next."""
        return self.patch_size

    @property
    def origin(self) -> float:
        """The row and column of the center of the first patch."""
        return (self.patch_size - 1) / 2

    def stage(self, name: str, x: Any, *, train: bool) -> Any:
        """Computes the embedding, a quarter of the blocks, or the last LayerNorm.

        Between stages there are patch tokens `[B, h, w, D]`, and class token and registers `[B, P, D]`.
        """
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        norm: Any = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False, **dtypes)
        if name == "embedding":
            return self._embedded(x, dtypes)
        patches, prefix = x
        if name == "last_norm":
            return norm(name="norm")(patches)
        dense: Any = functools.partial(Dense, kernel_init=_KERNEL_INIT, **dtypes)
        count, cells = prefix.shape[1], patches.shape
        tokens = jnp.concatenate([prefix, patches.reshape(cells[0], -1, cells[3])], axis=1)
        group = int(name.removeprefix("blocks"))
        for index in range(self.depth * (group - 1) // 4, self.depth * group // 4):
            rate = self.drop_rate(index, self.depth - 1, train=train)
            block = functools.partial(Block, self.heads, self.layer_scale, norm, dense)
            tokens = block(self.param_dtype, rate, name=f"blocks_{index}")(tokens)
        return tokens[:, count:].reshape(cells), tokens[:, :count]

    def _embedded(self, images: jax.Array, dtypes: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        """Cuts images into patches; rows and columns beyond the last whole patch are left out."""
        size = self.patch_size
        conv: Any = functools.partial(Convolution, kernel_init=_KERNEL_INIT, **dtypes)
        patches = conv(self.channels, (size, size), size, name="patch_embed_proj")(images)
        batch, rows, columns, channels = patches.shape
        of_class = 0 if self.registers else 1
        positions = self._parameter("pos_embed", of_class + rows * columns, _KERNEL_INIT)
        prefix = self._parameter("cls_token", 1, _TOKEN_INIT)
        if self.registers:
            registers = self._parameter("reg_token", self.registers, _TOKEN_INIT)
            prefix = jnp.concatenate([prefix, registers], axis=1)
        else:
            prefix += positions[:, :1]
        patches += positions[:, of_class:].reshape(1, rows, columns, channels)
        return patches, jnp.broadcast_to(prefix, (batch, *prefix.shape[1:]))

    def _parameter(self, name: str, count: int, initializer: nn.initializers.Initializer) -> Any:
        shape = (1, count, self.channels)
        return self.param(name, initializer, shape, self.param_dtype).astype(self.dtype)


def from_config(network: Network, size: str, patch_size: int, **kwargs: Any) -> ViT:
    """Builds the backbone of a size of `SIZES` for the config's section `network`.

    Raises:
      UserError: `last_stride` is not that of the architecture.
    """
    refuse_last_stride(network)
    depth, heads = SIZES[size]
    heads = max(1, round(heads * network.width))
    return ViT(
        patch_size=patch_size,
        depth=depth,
        heads=heads,
        channels=_HEAD_CHANNELS * heads,
        dtype=jnp.dtype(network.compute_dtype),
        **kwargs,
    )


_HALF = (0.5, 0.5, 0.5)
_KINDS: Mapping[str, dict[str, Any]] = {
    "patch16_224": {"patch_size": 16, "mean": _HALF, "std": _HALF},
    "patch14_dinov2": {"patch_size": 14, "layer_scale": True},
    "patch14_reg4_dinov2": {"patch_size": 14, "layer_scale": True, "registers": 4},
}
ARCHITECTURES: Mapping[str, Callable[[Network], Backbone]] = {
    f"vit_{size}_{kind}": functools.partial(from_config, size=size, **kwargs)
    for kind, kwargs in _KINDS.items()
    for size in SIZES
}

_AUGREG = ("augreg_in21k", "augreg_in21k_ft_in1k")
_ORIGINAL = ("orig_in21k", "orig_in21k_ft_in1k", "sam_in1k")
# Those of vit_*_patch16_224.dino and .mae are left out: they take ImageNet's mean and deviation.
_TAGS: Mapping[str, tuple[str, ...]] = {
    "vit_small_patch16_224": (*_AUGREG, "augreg_in1k"),
    "vit_base_patch16_224": (*_AUGREG, "augreg_in1k", "augreg2_in21k_ft_in1k", *_ORIGINAL),
    "vit_large_patch16_224": (*_AUGREG, "orig_in21k"),
    **{name: ("lvd142m",) for name in ARCHITECTURES if name.endswith("dinov2")},
}
HUB: Hub = licensed("Apache-2.0", _TAGS)

"""Backbones: images `[B, H, W, 3]` to features `[B, h, w, D]`, listed here by name."""

from collections.abc import Callable, Mapping

import flax.linen as nn

from fgr_jax.config import Network
from fgr_jax.models.backbones import convnext, efficientnet, resnet, vit
from fgr_jax.models.backbones.interface import Hub

# Each is a function of the config's section `network` that returns a Flax module. The names of
# architectures are timm's.
BACKBONES: Mapping[str, Callable[[Network], nn.Module]] = {
    **resnet.ARCHITECTURES,
    **convnext.ARCHITECTURES,
    **efficientnet.ARCHITECTURES,
    **vit.ARCHITECTURES,
}

# Their published weights.
HUB: Hub = {**resnet.HUB, **convnext.HUB, **efficientnet.HUB, **vit.HUB}

"""Heads: features `[B, h, w, D]` to `Outputs`, listed here by name."""

import functools
from collections.abc import Callable, Mapping

import flax.linen as nn

from fgr_jax.config import Network
from fgr_jax.models.heads import (
    bcnn,
    cam,
    deep_ten,
    dep,
    dfl_cnn,
    gaussian,
    isqrt_cov,
    mamc,
    nts,
    tasn,
)

# Each is a function of the config's section `network` and the number of classes that returns a module.
HEADS: Mapping[str, Callable[[Network, int], nn.Module]] = {
    "cam": cam.from_config,
    "gaussian": gaussian.from_config,
    "bcnn": bcnn.from_config,
    "isqrt_cov": isqrt_cov.from_config,
    "deep_ten": deep_ten.from_config,
    "dep": dep.from_config,
    "dfl_cnn": dfl_cnn.from_config,
    "mamc": mamc.from_config,
    "mamc_pooled": functools.partial(mamc.from_config, pooled=True),
    "nts": nts.from_config,
    "tasn": tasn.from_config,
}

"""Which listed architecture a weight file is of: for the error that it is not the config's."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from fgr_jax import config as config_lib
from fgr_jax.models.backbones import BACKBONES
from fgr_jax.models.backbones.interface import Backbone
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network
from fgr_jax.models.weights.table import COUNTER, Tensors, to_tensors

_GENERIC = "resnet"  # listed without a depth
_IMAGE_SIZE = 224
_OF_CLASSIFIER = 2  # tensors

Shapes = Mapping[str, tuple[int, ...]]


def architectures_of(tensors: Tensors) -> list[str]:
    """Returns the listed architectures that have these tensors, apart from the classifier.

    There are several where only padding differs. Takes some seconds, since it traces networks: one of
    each family, and all of the family whose names of tensors are those of the file.
    """
    theirs = {name: tensor.shape for name, tensor in tensors.items()}
    return [name for name, ours in _listed_like(theirs) if _has_all(theirs, ours)]


def _has_all(theirs: Shapes, ours: Shapes) -> bool:
    """Returns whether a file has all tensors of a backbone, and only a classifier beside them."""
    counters = {name for name in ours if name.endswith(COUNTER)}
    needed = {name: shape for name, shape in ours.items() if name not in counters}
    beside = theirs.keys() - ours.keys()
    return needed.items() <= theirs.items() and len(beside) <= _OF_CLASSIFIER


def _listed_like(theirs: Shapes) -> Iterator[tuple[str, Shapes]]:
    foreign: set[type] = set()
    for name, build in BACKBONES.items():
        if name == _GENERIC:
            continue
        backbone = build(config_lib.Network(backbone=name))
        if not isinstance(backbone, Backbone) or type(backbone) in foreign:
            continue
        ours = _shapes(backbone)
        if len(ours.keys() & theirs.keys()) < len(ours) / 2:
            foreign.add(type(backbone))
        yield name, ours


def _shapes(backbone: Backbone) -> Shapes:
    """Returns the shapes of the backbone's tensors in weight files."""
    network = Network(backbone, CamHead(1))
    images = jnp.zeros((1, _IMAGE_SIZE, _IMAGE_SIZE, 3))
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    like = {collection: {"backbone": modules["backbone"]} for collection, modules in like.items()}
    arrays = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.bool_), like)
    return {name: tensor.shape for name, tensor in to_tensors(arrays, network.table).items()}

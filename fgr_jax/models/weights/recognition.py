"""Which listed architecture a weight file is of: for the error that it is not the config's."""

import functools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

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
_SIMILAR = 0.5

Shapes = Mapping[str, tuple[int, ...]]


class Recognized(NamedTuple):
    """Listed architectures; there are several where only padding differs.

    Attributes:
      names: timm's names; empty if no listed architecture is similar.
      is_exact: whether they have exactly these tensors, apart from the classifier.
    """

    names: list[str]
    is_exact: bool


def recognized(tensors: Tensors) -> Recognized:
    """Returns the listed architectures of a weight file, or the most similar ones.

    Takes some seconds, since it traces networks: one of each family, and all of the family whose names
    of tensors are those of the file.
    """
    theirs = _without_counters(tensors)
    similarities: dict[str, float] = {}
    exact: list[str] = []
    for name, ours in _listed_like(theirs):
        similarities[name] = _similarity(theirs, ours)
        if _has_all(theirs, ours):
            exact.append(name)
    if exact:
        return Recognized(exact, is_exact=True)
    highest = max(similarities.values())
    if highest < _SIMILAR:
        return Recognized([], is_exact=False)
    similar = [name for name, similarity in similarities.items() if similarity == highest]
    return Recognized(similar, is_exact=False)


def _similarity(theirs: Shapes, ours: Shapes) -> float:
    """Returns the share of the tensors of either that have the same name and shape in both."""
    return len(ours.items() & theirs.items()) / len(ours.keys() | theirs.keys())


def _has_all(theirs: Shapes, ours: Shapes) -> bool:
    """Returns whether a file has all tensors of a backbone, and only a classifier beside them."""
    beside = theirs.keys() - ours.keys()
    return ours.items() <= theirs.items() and len(beside) <= _OF_CLASSIFIER


def _listed_like(theirs: Shapes) -> Iterator[tuple[str, Shapes]]:
    """Yields the listed architectures, without those of families with other names of tensors."""
    foreign: set[type] = set()
    for name in BACKBONES:
        if name == _GENERIC:
            continue
        backbone = BACKBONES[name](config_lib.Network(backbone=name))
        if not isinstance(backbone, Backbone) or type(backbone) in foreign:
            continue
        ours = _shapes(backbone)
        if len(ours.keys() & theirs.keys()) < min(len(ours), len(theirs)) / 2:
            foreign.add(type(backbone))
        yield name, ours


@functools.cache
def _shapes(backbone: Backbone) -> Shapes:
    """Returns the shapes of the backbone's tensors in weight files, without counters."""
    network = Network(backbone, CamHead(1))
    images = jnp.zeros((1, _IMAGE_SIZE, _IMAGE_SIZE, 3))
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), images, train=False))
    like = {collection: {"backbone": modules["backbone"]} for collection, modules in like.items()}
    arrays = jax.tree.map(lambda leaf: np.empty(leaf.shape, np.bool_), like)
    return _without_counters(to_tensors(arrays, network.table))


def _without_counters(tensors: Tensors) -> Shapes:
    return {name: each.shape for name, each in tensors.items() if not name.endswith(COUNTER)}

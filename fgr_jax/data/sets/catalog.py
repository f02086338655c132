"""The data sets that this package knows how to prepare, by the name that a config gives."""

from collections.abc import Iterable

from fgr_jax.data.prepare.builder import PictureBuilder
from fgr_jax.data.sets.aircraft import Aircraft
from fgr_jax.data.sets.cars import Cars
from fgr_jax.data.sets.cub import Cub
from fgr_jax.data.sets.dogs import Dogs
from fgr_jax.data.sets.gtos_mobile import GtosMobile
from fgr_jax.data.sets.imagenet import Imagenet


def archived() -> Iterable[type[PictureBuilder]]:
    """Those that come in archives."""
    return (Cub, Cars, Aircraft, Dogs, GtosMobile, Imagenet)

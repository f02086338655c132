"""The data sets that this package knows how to prepare, by the name that a config gives."""

from collections.abc import Iterable

from fgr_jax.datasets.aircraft import Aircraft
from fgr_jax.datasets.builder import PictureBuilder
from fgr_jax.datasets.cars import Cars
from fgr_jax.datasets.cub import Cub
from fgr_jax.datasets.dogs import Dogs
from fgr_jax.datasets.gtos_mobile import GtosMobile
from fgr_jax.datasets.imagenet import Imagenet


def archived() -> Iterable[type[PictureBuilder]]:
    """Those that come in archives."""
    return (Cub, Cars, Aircraft, Dogs, GtosMobile, Imagenet)

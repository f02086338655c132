"""The data sets that this package can prepare, by the name in the config."""

import functools
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from fgr_jax.config import Data
from fgr_jax.data.prepare import preparation
from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.sets.aircraft import Aircraft
from fgr_jax.data.sets.cars import Cars
from fgr_jax.data.sets.cub import Cub
from fgr_jax.data.sets.dogs import Dogs
from fgr_jax.data.sets.elpv import Elpv
from fgr_jax.data.sets.folder import Folder
from fgr_jax.data.sets.gtos_mobile import GtosMobile
from fgr_jax.data.sets.imagenet import Imagenet
from fgr_jax.data.sets.synthetic import Synthetic
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

# Distributed as archives; the command `fgr_jax.prepare` prepares them.
ARCHIVED: tuple[type[ImageBuilder], ...] = (Cub, Cars, Aircraft, Dogs, GtosMobile, Imagenet)
# Generated, or contained in an installed package; prepared when first opened.
INSTALLED: tuple[type[tfds.core.GeneratorBasedBuilder], ...] = (Elpv, Synthetic)
# `Folder`, the user's own images, is prepared when first opened and again whenever the folder changes.


def prepare(
    data: Data, sources: Sequence[Path], data_dir: Path, terminal: Terminal, *, verify: bool
) -> str:
    """Prepares the data set that `data` names, as `preparation.prepare` does.

    Returns:
      The name under which tfds finds it.

    Raises:
      UserError: the name is unknown, or the source is invalid.
    """
    for builder in ARCHIVED:
        if builder.name == data.name:
            preparation.prepare(builder, sources, data_dir, terminal, verify=verify)
            return data.name
    if sources and data.name == Folder.name:
        raise UserError(
            f"--source={sources[0]}: a folder of your own is named with --config.data.folder=PATH"
        )
    name = prepare_on_demand(data, data_dir, terminal, verify=verify)
    if name is None:
        known = ", ".join(builder.name for builder in (*ARCHIVED, *INSTALLED))
        raise UserError(
            f"--config.data.name={data.name!r}: this command prepares {known} and {Folder.name}"
        )
    return name


def prepare_on_demand(
    data: Data, data_dir: Path, terminal: Terminal, *, verify: bool = False
) -> str | None:
    """Prepares a data set that is not distributed as archives, unless it is prepared already.

    Returns:
      The name under which tfds finds it; None if `data` names another data set.

    Raises:
      UserError: there is no such variant, or images are missing or invalid.
    """
    if data.name == Folder.name:
        return _prepare_folder(data.folder, data_dir, terminal, verify=verify)
    family, _, variant = data.name.partition("/")
    for builder in INSTALLED:
        if builder.name == family:
            return _prepare_installed(builder, variant, data_dir, terminal)
    return None


def _prepare_folder(folder: str, data_dir: Path, terminal: Terminal, *, verify: bool) -> str:
    if not folder:
        raise UserError(
            "--config.data.folder is empty: name the folder of your images, --config.data.folder=PATH"
        )
    root = Path(folder).expanduser()
    listing = Folder.read(root)
    variant = Folder.variant(root, listing)
    build = functools.partial(
        preparation.store, Folder, listing, data_dir, terminal, variant=variant, verify=verify
    )
    if listing.problems:  # even if the rest of it is prepared already
        build()
    return preparation.prepare_once(f"{Folder.name}/{variant.name}", data_dir, terminal, build)


def _prepare_installed(
    builder: type[tfds.core.GeneratorBasedBuilder], variant: str, data_dir: Path, terminal: Terminal
) -> str:
    variants = [config.name for config in builder.BUILDER_CONFIGS]
    variant = variant or variants[0]

    def build() -> None:
        if variant not in variants:
            raise UserError(
                f"--config.data.name={builder.name}/{variant}: the variants of {builder.name} are "
                + ", ".join(variants)
            )
        with preparation.quiet_tfds():
            building = builder(config=variant, data_dir=str(data_dir), file_format="array_record")
            building.download_and_prepare()

    return preparation.prepare_once(f"{builder.name}/{variant}", data_dir, terminal, build)

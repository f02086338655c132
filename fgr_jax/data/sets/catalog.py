"""The data sets that this package can prepare, by the name in the config."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from fgr_jax.config import Data
from fgr_jax.data.identity import DataIdentity
from fgr_jax.data.prepare import preparation, variants
from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.contents import Contents
from fgr_jax.data.prepare.prepared import (
    NotPreparedError,
    Prepared,
    is_prepared,
    open_prepared,
)
from fgr_jax.data.sets import table
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
from fgr_jax.files.local import local_path
from fgr_jax.terminal import Terminal

# Distributed as archives; the command `fgr_jax.prepare` prepares them.
ARCHIVED: tuple[type[ImageBuilder], ...] = (Cub, Cars, Aircraft, Dogs, GtosMobile, Imagenet)
# Generated, or contained in an installed package; prepared when first opened.
INSTALLED: tuple[type[tfds.core.GeneratorBasedBuilder], ...] = (Elpv, Synthetic)
# `Folder`, the user's own images, is prepared when first opened and again whenever they change.
_FOLDER_FLAG = "--config.data.folder"


def prepare(
    data: Data, sources: Sequence[Path], data_dir: Path, terminal: Terminal, *, verify: bool
) -> Prepared:
    """Prepares the data set that `data` names, as `preparation.prepare` does, and opens it.

    Raises:
      UserError: the name is unknown, or the source is invalid.
    """
    for builder in ARCHIVED:
        if builder.name == data.name:
            is_new = preparation.prepare(
                builder, sources, data_dir, terminal, reading=data, verify=verify
            )
            return open_prepared(data.name, data_dir)._replace(is_verified=is_new and verify)
    if sources and data.name == Folder.name:
        raise UserError(
            f"--source={sources[0]}: a folder of your own is named with {_FOLDER_FLAG}=PATH"
        )
    prepared = prepare_on_demand(data, data_dir, terminal, verify=verify)
    if prepared is None and is_prepared(data.name, data_dir):
        return open_prepared(data.name, data_dir)
    if prepared is None:
        known = ", ".join(builder.name for builder in (*ARCHIVED, *INSTALLED))
        raise UserError(
            f"--config.data.name={data.name!r}: this command prepares {known} and {Folder.name}"
        )
    return prepared


def prepare_on_demand(
    data: Data,
    data_dir: Path,
    terminal: Terminal,
    *,
    verify: bool = False,
    recorded: DataIdentity | None = None,
) -> Prepared | None:
    """Opens a data set that is not distributed as archives, and prepares it first if necessary.

    Args:
      data: names the data set.
      data_dir: where data sets are prepared.
      terminal: shows the progress.
      verify: whether every image that is prepared is decoded once.
      recorded: what the run was trained on that is resumed or evaluated: where the user's folder is
        gone, its prepared images are used.

    Returns:
      None if `data` names another data set.

    Raises:
      UserError: there is no such variant, or images are missing or invalid.
    """
    if data.name == Folder.name:
        return _open_own(data, data_dir, recorded, terminal, verify=verify)
    family, _, variant = data.name.partition("/")
    for builder in INSTALLED:
        if builder.name == family:
            name = _prepare_installed(builder, variant, data_dir, terminal)
            return open_prepared(name, data_dir)
    return None


def _open_own(
    data: Data, data_dir: Path, recorded: DataIdentity | None, terminal: Terminal, *, verify: bool
) -> Prepared:
    """Opens the user's own images, of a folder or a table."""
    if data.table:
        root, named = table.table_files(data)[0], f"--config.data.table={data.table}"
        is_there, missing = root.is_file(), "no such file"
    else:
        root, named = local_path(data.folder, _FOLDER_FLAG), f"{_FOLDER_FLAG}={data.folder}"
        is_there, missing = bool(data.folder) and root.is_dir(), "no such folder"
    if recorded is not None and not is_there:
        prepared = variants.find_recorded(recorded, data_dir)
        if prepared is not None:
            terminal.line(
                f"{named}: {missing}; the images are those of the prepared data set {prepared.name} in "
                f"{data_dir}"
            )
            return prepared
    if not (data.folder or data.table):
        raise UserError(
            f"{_FOLDER_FLAG} is empty: name the folder of your images, {_FOLDER_FLAG}=PATH, or a table "
            "of them, --config.data.table=FILE"
        )
    kept = None
    if recorded is not None and not data.table:
        kept = _kept(root, recorded, data_dir, terminal)
    if kept is not None:
        terminal.line(
            f"{named}: holds all images of the run, but this version reads it "
            f"otherwise (other classes, splits or files) than the run's: the run keeps its prepared "
            f"data set {kept.name} in {data_dir}"
        )
        return kept
    if data.table:
        listing = table.read_tables(data)
    else:
        examples = None if recorded is None else recorded.examples
        validation = bool(data.validation_split) or data.split == "hash"
        listing = Folder.read(root, train_examples=examples, validation=validation)
    images = variants.FolderImages(root, listing)

    def find() -> Prepared | None:
        if listing.problems:  # it is refused, even if the rest of it is prepared already
            return None
        return variants.find(images, data_dir, recorded, terminal)

    prepared = find()
    if prepared is None:
        with preparation.exclusive(data_dir, Folder.name, terminal):
            prepared = find()  # prepared by another process
            if prepared is None:
                variant = variants.new_variant(images, data_dir)
                options = {"variant": variant, "reading": data, "verify": verify}
                preparation.store(Folder, listing, data_dir, terminal, **options)
                path = data_dir / Folder.name / variant.name
                prepared = variants.open_variant(path)._replace(is_verified=verify)
                images.remember_at(path, prepared.contents.digest)
    # What is left out may have changed since.
    now = Contents.of(listing)
    contents = dataclasses.replace(
        now, digest=prepared.contents.digest, class_names=prepared.contents.class_names
    )
    return prepared._replace(contents=contents)


def _kept(
    root: Path, recorded: DataIdentity, data_dir: Path, terminal: Terminal
) -> Prepared | None:
    """Returns the prepared variant of an older run whose folder this version reads otherwise.

    That is so where the variant's images are all in the folder still, and are no longer what is read
    there. Newer runs recorded their content, which decides.
    """
    if recorded.content or not recorded.is_folder:
        return None
    try:
        prepared = variants.find_recorded(recorded, data_dir)
    except NotPreparedError:
        return None
    if prepared is None:
        return None
    try:
        listing = Folder.read(root, train_examples=recorded.examples)
        images = variants.FolderImages(root, listing)
        found = None if listing.problems else variants.find(images, data_dir, recorded, terminal)
    except UserError:
        found = None
    content = variants.with_content(recorded, data_dir, terminal).content
    if found is not None and found.contents.digest == content:
        return None
    # A run that records content is not asked again: without it, the name identifies this variant.
    unnamed = dataclasses.replace(prepared.contents, digest="")
    is_whole = variants.is_still_in(root, prepared)
    return prepared._replace(contents=unnamed) if is_whole else None


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
            preparation.download_and_prepare(building, data_dir)

    return preparation.prepare_once(f"{builder.name}/{variant}", data_dir, terminal, build)

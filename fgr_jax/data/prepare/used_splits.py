"""Which images of a data set a run trains on, is evaluated on while it trains, and is tested on."""

import collections
import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fgr_jax.config import Data, parsed_fold
from fgr_jax.data.prepare.contents import GROUP, Contents
from fgr_jax.data.prepare.hash_split import SIDES, Images, folds, sides
from fgr_jax.data.prepare.index import Index, joined, read_index
from fgr_jax.data.prepare.listing import counted
from fgr_jax.data.prepare.prepared import Prepared, Records, has_file_names
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

TRAIN, VALIDATION, TEST = SIDES
_SHOWN = 5  # classes in a note


class Used(NamedTuple):
    """The images of a split, as rows of records."""

    records: str  # in tfds notation
    rows: npt.NDArray[np.int64] | None  # in order; None: all of them
    name: str  # in the identity of the split
    field: str  # of the config, which selects it
    listed: Index | None = None  # of the records, where rows are selected by their names


def used_splits(prepared: Prepared, data: Data, terminal: Terminal) -> dict[str, Used]:
    """Returns the images for "train", "validation" (where there are any) and "test".

    Raises:
      UserError: images have no names, or no labels, and these are needed.
    """
    if data.split == "hash":
        used = _by_hash(prepared, data, terminal)
    else:
        used = {
            TRAIN: Used(data.train_split, None, data.train_split, "train_split"),
            TEST: Used(data.test_split, None, data.test_split, "test_split"),
        }
        if data.validation_split:
            name = data.validation_split
            used[VALIDATION] = Used(name, None, name, "validation_split")
    fold = parsed_fold(data.fold)
    if fold is not None:
        used[TRAIN], used[TEST] = _fold(prepared, used[TRAIN], fold, terminal)
    return used


def with_splits(contents: Contents, used: Mapping[str, Used]) -> Contents:
    """Returns contents with the numbers of images of the splits, where names select these."""
    names, counts = contents.class_names, {}
    for split in (split for split in SIDES if split in used):
        listed, rows = used[split].listed, used[split].rows
        if listed is not None and rows is not None:
            labels = np.array(listed.labels, np.int64)[rows]
            counts[split] = np.bincount(labels, minlength=len(names)).tolist()
    if TEST not in counts:
        return contents
    notes = list(contents.notes)
    for split, word in ((TRAIN, "training"), (TEST, "test")):
        lacking = [name for name, count in zip(names, counts[split], strict=True) if not count]
        if lacking:
            shown = ", ".join(lacking[:_SHOWN]) + (" …" if len(lacking) > _SHOWN else "")
            notes.append(f"{counted(len(lacking), 'class')} without {word} images: {shown}")
    return dataclasses.replace(contents, images=counts, notes=notes)


def copies(used: Mapping[str, Used]) -> list[tuple[str, str]]:
    """Returns pairs of images outside and inside the training split that are byte for byte the same.

    Only images of splits that are selected by names are compared.
    """
    first: dict[bytes, str] = {}
    pairs = []
    for split in (split for split in SIDES if split in used):
        listed, rows = used[split].listed, used[split].rows
        if listed is None or rows is None:
            continue
        for row in rows:
            name, digest = f"{split}/{listed.names[row]}", listed.digests[row]
            if split == TRAIN:
                first.setdefault(digest, name)
            elif digest in first:
                pairs.append((name, first[digest]))
    return pairs


def _by_hash(prepared: Prepared, data: Data, terminal: Terminal) -> dict[str, Used]:
    if not has_file_names(prepared):
        raise UserError(
            f'--config.data.split="hash": the data set {prepared.name} does not keep the names of its '
            "files, by which images are divided"
        )
    of_splits = read_index(prepared, terminal)
    listed = joined(of_splits.values())
    if data.group:
        folders = [name.split("/")[1:-1] for name in listed.names]  # below that of the class
        groups = [
            "/".join(path[: data.group]) if len(path) >= data.group else "" for path in folders
        ]
        listed = dataclasses.replace(listed, groups=groups)
        if not any(listed.groups):
            raise UserError(
                f"--config.data.group={data.group}: no image lies in {data.group} levels of folders "
                f"below that of its class, as {listed.names[0]} shows"
            )
    images = _images(prepared, listed)
    side = sides(images, test_share=data.test_share, validation_share=data.validation_share)
    shares = f"test {data.test_share}"
    shares += f", validation {data.validation_share}" if data.validation_share else ""
    shares += f", groups of level {data.group}" if data.group else ""
    records = "+".join(of_splits)
    return {
        name: Used(
            records, np.flatnonzero(side == i), f"{name} by hash ({shares})", "split", listed
        )
        for i, name in enumerate(SIDES)
        if name != VALIDATION or data.validation_share
    }


def _fold(
    prepared: Prepared, train: Used, fold: tuple[int, int], terminal: Terminal
) -> tuple[Used, Used]:
    """Returns the training split without a fold, and the fold.

    Folds are by hashes of names where the split is, or where images are in groups, and otherwise by the
    images' places.
    """
    number, count = fold
    listed, rows, what = train.listed, train.rows, f"fold {number}/{count}"
    if listed is None and GROUP in prepared.builder.info.features and prepared.is_ours:
        of_splits = read_index(prepared, terminal)
        if train.records not in of_splits:
            raise UserError(
                f"--config.data.train_split={train.records!r}: with --config.data.fold and groups, it "
                f"must be one of {', '.join(of_splits)}"
            )
        listed, what = of_splits[train.records], f"{what} of groups"
    if listed is None:
        rows = np.arange(len(Records(prepared, train.records)))
        in_fold = rows % count == number - 1
    else:
        rows = np.arange(len(listed.names)) if rows is None else rows
        images = _images(prepared, listed.at(rows))
        in_fold = folds(images, count) == number - 1
    name = train.name
    return (
        Used(train.records, rows[~in_fold], f"{name}, without {what}", train.field, listed),
        Used(train.records, rows[in_fold], f"{name}, {what}", "fold", listed),
    )


def _images(prepared: Prepared, listed: Index) -> Images:
    class_names = prepared.contents.class_names
    labels = collections.Counter(listed.labels)
    if labels and not 0 <= min(labels) <= max(labels) < len(class_names):
        raise UserError(
            f"data set {prepared.name} has images without labels: --config.data.split=given and splits "
            "that are labeled can be used"
        )
    return Images(listed.names, listed.labels, listed.groups, class_names)

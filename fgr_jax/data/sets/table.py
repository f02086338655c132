"""The user's own images in a table: a path and a label for each, and perhaps a split and a group."""

import collections
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from fgr_jax.config import Data, parsed_columns
from fgr_jax.data.prepare.hash_split import SIDES, TEST, Images, sides
from fgr_jax.data.prepare.listing import ImageFile, Listing, counted, raise_if_any
from fgr_jax.data.sets.folder import TEST_PERCENT, split_by_name
from fgr_jax.data.sets.layout import simplified, split_named
from fgr_jax.data.sets.table_entries import WAY_OUT, Entry, read_entries, without_repetitions
from fgr_jax.data.sets.table_rows import read_table
from fgr_jax.errors import UserError
from fgr_jax.files.local import local_path, no_such

_TRAIN, _VALIDATION, _TEST = SIDES
_SHOWN = 5  # names in a note


def table_files(data: Data) -> list[Path]:
    """Returns the tables that `data.table` names: one, or several after commas."""
    flag = "--config.data.table"
    whole = local_path(data.table, flag)
    if whole.is_file():
        return [whole]
    return [local_path(name.strip(), flag) for name in data.table.split(",")]


def read_tables(data: Data) -> Listing:
    """Reads the images that the tables of `data` name.

    The listing is that of a folder with the same images: classes and images are sorted, whatever the
    order of the rows. Without splits, `split_by_name` holds out images for testing.

    Raises:
      UserError: naming line and column of every row that is wrong.
    """
    files = table_files(data)
    folder = local_path(data.folder, "--config.data.folder") if data.folder else files[0].parent
    if data.folder and not folder.is_dir():
        raise UserError(f"--config.data.folder={data.folder}: {no_such('folder', folder)}")
    entries: list[Entry] = []
    problems: list[str] = []
    for file in files:
        split = ""
        if len(files) > 1:
            split = split_named(file.stem)
            if not split:
                raise UserError(
                    f"--config.data.table={data.table}: the names of several tables must be those of "
                    f"splits, such as train.csv and test.csv, and {file.name} is not"
                )
        found, wrong = read_entries(
            read_table(file), parsed_columns(data.table_columns) or {}, folder, split
        )
        entries += found
        problems += wrong
    what = f"--config.data.table={data.table}"
    raise_if_any(problems, what, WAY_OUT)
    entries, notes = without_repetitions(entries, what)
    return _listing(entries, notes, data)


def _listing(entries: Sequence[Entry], notes: list[str], data: Data) -> Listing:
    class_names = _sorted_classes({entry.label for entry in entries})
    label_of = {name: label for label, name in enumerate(class_names)}
    notes = [*notes, *_note_on_similar(class_names)]
    by_split: dict[str, list[Entry]] = collections.defaultdict(list)
    for entry in sorted(entries, key=lambda entry: (label_of[entry.label], entry.name)):
        by_split[entry.split].append(entry)
    problems: list[str] = []
    if "" in by_split:
        by_split, problems = _held_out(by_split[""], class_names)
    elif _TRAIN not in by_split or len(by_split) == 1:
        present = " and ".join(sorted(by_split))
        raise UserError(
            f"--config.data.table={data.table}: all images are in the split {present}, and there must "
            "be train and test; --config.data.table_columns=split= holds out one image in five instead"
        )
    elif _TEST not in by_split:
        by_split[_TEST] = by_split.pop(_VALIDATION)
        notes.append("there is no split called test: that for validation is used for testing")
    elif _VALIDATION in by_split and data.split == "given" and not data.validation_split:
        count = len(by_split[_VALIDATION])
        notes.append(
            f"{counted(count, 'image')} for validation {'is' if count == 1 else 'are'} not used: "
            "--config.data.validation_split=validation evaluates on them during training"
        )
    notes += _notes_on_splits(by_split)
    return Listing(
        class_names,
        {
            split: [
                ImageFile(entry.path, label_of[entry.label], entry.name, group=entry.group)
                for entry in by_split[split]
            ]
            for split in (_TRAIN, _VALIDATION, _TEST)
            if split in by_split
        },
        notes=notes,
        problems=problems,
    )


def _sorted_classes(names: set[str]) -> list[str]:
    """Returns the classes in order: that of their numbers if all are numbers."""
    if all(re.fullmatch("-?[0-9]+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _held_out(
    entries: Sequence[Entry], class_names: Sequence[str]
) -> tuple[dict[str, list[Entry]], list[str]]:
    """Splits images without a given split, and returns what is wrong with them."""
    of_class = collections.defaultdict(list)
    for entry in entries:
        of_class[entry.label].append(entry.name)
    test = {name for files in of_class.values() for name in split_by_name(files)[1]}
    if any(entry.group for entry in entries):
        names, groups = ([getattr(each, key) for each in entries] for key in ("name", "group"))
        labels = [class_names.index(entry.label) for entry in entries]
        of = sides(Images(names, labels, groups, class_names), test_share=TEST_PERCENT / 100)
        test = {name for name, side in zip(names, of, strict=True) if side == TEST}
    problems = [
        f"the class {name!r} has one image: a class needs two, one of them for testing"
        for name in class_names
        if len(of_class[name]) == 1
    ]
    splits: dict[str, list[Entry]] = {_TRAIN: [], _TEST: []}
    for entry in entries:
        splits[_TEST if entry.name in test else _TRAIN].append(entry)
    return splits, problems


def _note_on_similar(class_names: Sequence[str]) -> list[str]:
    alike = collections.defaultdict(list)
    for name in class_names:
        alike[simplified(name)].append(name)
    pairs = [" and ".join(map(repr, names)) for names in alike.values() if len(names) > 1]
    more = f" and {len(pairs) - _SHOWN:,} more" if len(pairs) > _SHOWN else ""
    if not pairs:
        return []
    return [
        f"labels that differ in little are different classes: {', '.join(pairs[:_SHOWN])}{more}"
    ]


def _notes_on_splits(by_split: Mapping[str, Sequence[Entry]]) -> list[str]:
    """Returns notes on classes without test images and on groups in several splits."""
    notes = []
    tested = {entry.label for entry in by_split[_TEST]}
    untested = sorted({entry.label for entry in by_split[_TRAIN]} - tested)
    if untested:
        named = ", ".join(map(repr, untested[:_SHOWN])) + (" …" if len(untested) > _SHOWN else "")
        notes.append(f"{counted(len(untested), 'class')} without test images: {named}")
    splits_of = collections.defaultdict(set)
    for split, entries in by_split.items():
        for entry in entries:
            splits_of[entry.group].add(split)
    split_up = sorted(group for group, splits in splits_of.items() if group and len(splits) > 1)
    if split_up:
        named = ", ".join(map(repr, split_up[:_SHOWN])) + (" …" if len(split_up) > _SHOWN else "")
        notes.append(
            f"{counted(len(split_up), 'group')} in several splits; accuracies are too high: {named}"
        )
    return notes

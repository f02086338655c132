"""Folders of images, one for each class: the user's own, and data sets that come in this form."""

import collections
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from fgr_jax.data.image_files import (
    BROKEN,
    PREPARED,
    RUN,
    Level,
    as_text,
    describe,
    find_images,
    is_fault,
    is_output,
    look,
)
from fgr_jax.data.prepare.archives import is_archive
from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.listing import ImageFile, LayoutNotFoundError, Listing
from fgr_jax.data.sets.layout import (
    Layout,
    are_named_by_split,
    below,
    did_you_mean,
    find_pair,
    is_called_class,
    is_split,
    similar,
    simplified,
    understand,
    validation_folder,
)
from fgr_jax.errors import UserError
from fgr_jax.files.local import no_such

BESIDE = "images beside the folders of the classes"
TEST_PERCENT = 20
_SHOWN = 8  # names of folders in a message


class Folder(ImageBuilder):
    """The user's own images: a folder for each class."""

    BUILDER_CONFIGS = ()

    @classmethod
    def read(
        cls, root: Path, *, train_examples: int | None = None, validation: bool = False
    ) -> Listing:
        """Reads `train/<class>/*` and `test/<class>/*`, or `<class>/*` split by file name.

        The names of the splits may be others, as `layout.understand` says. With one level of folders,
        `split_by_name` decides which images are for testing: about one in five, and at least one of each
        class. Version 0.1.0 had no such minimum. Its split is used where it has `train_examples` images
        for training, as recorded by a run, and the other has not. With `validation`, a third folder of
        images for validation is read, if there is one.
        """
        if not root.is_dir():
            is_packed = root.is_file() and is_archive(root)
            if is_packed:
                what = "is an archive: unpack it and name the folder"
            elif root.exists():
                what = "is a file: name the folder of the images"
            else:
                what = no_such("folder", root)
            raise UserError(f"--config.data.folder={root}: {what}")
        # What a run was trained on is read again as it was, though it might mean something else.
        lenient = train_examples is not None
        listing = read_class_folders(root, lenient=lenient, validation=validation)
        if train_examples not in (None, len(listing.splits["train"])):
            earlier = read_class_folders(root, by_hash_alone=True, lenient=True)
            if len(earlier.splits["train"]) == train_examples:
                return earlier
        return listing


def read_class_folders(
    root: Path, *, by_hash_alone: bool = False, lenient: bool = False, validation: bool = False
) -> Listing:
    """Reads a folder of folders, with or without splits.

    With `validation`, there may be a third split. With `lenient`, folders are classes even if those
    inside them could be the classes as well, and what may be parts of one split is not refused.

    What is wrong with it, such as a class without images, is in the listing's `problems`.

    Raises:
      LayoutNotFoundError: the folders have no meaning, or more than one.
    """
    layout = understand(root, lenient=lenient)
    notes = list(layout.notes)
    left_out: dict[str, set[Path]] = collections.defaultdict(set)
    train = _classes(layout.train, left_out)
    if layout.test is None:
        notes += _note_on_file_names(train)
        problems = [
            f"{layout.train / name} holds one image: a class needs two, one of them for testing"
            for name, files in train.items()
            if len(files) == 1 and not by_hash_alone
        ]
        at_least = 0 if by_hash_alone else 1
        halves = {name: split_by_name(files, at_least) for name, files in train.items()}
        train, test = ({name: half[i] for name, half in halves.items()} for i in (0, 1))
        empty = [layout.train / name for name, half in halves.items() if not any(half)]
    else:
        test = _classes(layout.test, left_out)
        problems = _unpaired(layout, train, test)
        empty = [layout.train / name for name, files in train.items() if not files]
        empty += [layout.test / name for name in test if not test[name]]
    unused, splits = layout.unused, {"train": (layout.train, train)}
    third = validation_folder(layout) if validation else None
    if third is not None:
        of_validation = _classes(third[1], left_out)
        splits["validation"] = third[1], of_validation
        unused = [path for path in unused if path != third[0]]
        problems += [
            f"{third[1] / name} has no counterpart in {layout.train}"
            for name in sorted(of_validation)
            if name not in train
        ]
    splits["test"] = (layout.test or layout.train, test)
    every = {name: [*train.get(name, ()), *test.get(name, ())] for name in [*train, *test]}
    notes += _notes_on_inner_folders(layout, every, lenient=lenient)
    if not train:
        told = {reason: sorted(paths) for reason, paths in left_out.items()}
        problems.append(f"{layout.train} holds no folders of classes but {describe(told, root)}")
    for folder in _passed_through(root, layout):
        _leave_out(look(folder), left_out)
    faults, faulty = _faults(left_out)
    # What cannot be read may well be the images that are missed.
    problems += [
        _why_empty(path)
        for path in empty
        if not any(path in (fault, *fault.parents) for fault in faulty)
    ]
    class_names = [name for name, files in train.items() if files]
    return Listing(
        class_names,
        {
            split: _labeled(folder, [classes.get(name, []) for name in class_names])
            for split, (folder, classes) in splits.items()
        },
        unused=[below(root, path) for path in unused],
        left_out={
            reason: [below(root, path) for path in sorted(paths)]
            for reason, paths in sorted(left_out.items())
        },
        notes=list(map(as_text, notes)),
        problems=[*problems, *faults],
    )


def split_by_name(files: Sequence[str], at_least: int = 1) -> tuple[list[str], list[str]]:
    """Splits the images of a class into (train, test) by `is_test` of their names alone.

    Where that leaves fewer than `at_least` images in one half, that whose hash is nearest to the limit
    moves there, if there are two. The split is the same on every machine, and images that are added or
    removed move at most one other image.
    """
    ranked = sorted(files, key=lambda file: (_hash(file.rpartition("/")[2]), file))
    count = sum(is_test(file.rpartition("/")[2]) for file in files)
    if len(files) > at_least:
        count = min(max(count, at_least), len(files) - at_least)
    test = set(ranked[:count])
    return [file for file in files if file not in test], [file for file in files if file in test]


def is_test(file_name: str) -> bool:
    """Returns whether an image belongs to the test split, by the hash of its name: one in five."""
    return _hash(file_name) < TEST_PERCENT


def _hash(file_name: str) -> int:
    """Returns a number in [0, 100) that is about evenly distributed."""
    digest = hashlib.sha256(file_name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % 100


def _classes(folder: Path, left_out: dict[str, set[Path]]) -> dict[str, list[str]]:
    """Returns the images of each class, sorted, as paths relative to `folder`."""
    classes = {}
    level = look(folder)
    _leave_out(level, left_out)
    for of_class in level.folders:
        found = find_images(of_class)
        if is_output(found):
            left_out[RUN if RUN in found.left_out else PREPARED].add(of_class)
            continue
        for reason, paths in found.left_out.items():
            left_out[reason].update(paths)
        above = len(str(of_class)) - len(of_class.name)  # `relative_to` is slow
        classes[of_class.name] = sorted(str(path)[above:] for path in found.files)
    return classes


def _leave_out(level: Level, left_out: dict[str, set[Path]]) -> None:
    """Adds what `look` leaves out in a folder of folders, and the images in it."""
    for reason, paths in level.left_out.items():
        left_out[reason].update(paths)
    if level.images:
        left_out[BESIDE].update(level.images)


def _passed_through(root: Path, layout: Layout) -> Iterator[Path]:
    """Yields the folders from `root` down to the ones that hold the classes, without these."""
    for folder in filter(None, (layout.train, layout.test)):
        while folder != root:
            folder = folder.parent
            yield folder


def _faults(left_out: Mapping[str, set[Path]]) -> tuple[list[str], set[Path]]:
    """Returns a problem for each file that may be an image which the user misses, and these files."""
    problems, faulty = [], set[Path]()
    for reason, paths in sorted(left_out.items()):
        if is_fault(reason):
            faulty |= paths
            what = "is a broken link" if reason == BROKEN else reason
            problems += [f"{path} {what}" for path in sorted(paths)]
    return problems, faulty


def _labeled(folder: Path, classes: Sequence[Sequence[str]]) -> list[ImageFile]:
    return [
        ImageFile(os.path.join(folder, file), label, as_text(file))
        for label, files in enumerate(classes)
        for file in files
    ]


def _notes_on_inner_folders(
    layout: Layout, classes: Mapping[str, Sequence[str]], *, lenient: bool
) -> list[str]:
    """Returns notes on folders in class folders: they are read as part of the classes.

    Args:
      classes: the images of each class, of all splits.
      lenient: whether folders that several classes have are noted too, rather than refused.

    Raises:
      LayoutNotFoundError: they are splits, or may be the classes themselves.
    """
    inner = {
        name: {file.split("/", 2)[1] for file in files if file.count("/") > 1}
        for name, files in classes.items()
        if files
    }
    for name, folders in inner.items():
        pair = find_pair(sorted(folders))
        if pair:
            train, test = (f"{folder}/" for folder in pair)
            root = layout.train
            raise LayoutNotFoundError(
                f"{root / name} holds {train} and {test}: if it is a class, put the splits above "
                f"it, as in {train}{name}/; if it holds all the images, name it instead of "
                f"{root}"
            )
    everywhere = set.intersection(*inner.values()) if inner else set[str]()
    anywhere = set[str]().union(*inner.values())
    outer, shared = _alike(classes)
    if shared and not (lenient or all(map(is_called_class, outer))):
        raise LayoutNotFoundError(_ambiguous(layout, outer, shared))
    notes = []
    if anywhere and (len(anywhere) > 1 or len(everywhere) == 0):
        notes.append(
            f"the classes are {_several(sorted(inner))}; the folders inside them "
            f"({_several(sorted(anywhere))}) are read as part of them"
        )
    splits = sorted(filter(is_split, anywhere))
    if splits:
        notes.append(f"the folders {_several(splits)} inside the classes were not used to split")
    return notes


def _alike(classes: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Returns the outer folders that may be splits, and the folders inside them that may be the classes.

    These are outer folders of which each has two or more inner folders in common with another, if most
    of their images lie in inner folders, and if they are at least half of all outer folders or hold most
    of all images. A single outer folder may be a split, too. The inner folders may be several levels
    down. Where there are none, both lists are empty.
    """
    paths = {
        name: [folder.split("/")[1:] for folder in {file.rpartition("/")[0] for file in files}]
        for name, files in classes.items()
        if files
    }
    deepest = max((len(path) for found in paths.values() for path in found), default=0)
    for depth in range(1, deepest + 1):
        inner = {
            name: {"/".join(path[:depth]) for path in found if len(path) >= depth}
            for name, found in paths.items()
        }
        is_single = len(inner) == 1 and len(*inner.values()) > 1
        outer = sorted(inner if is_single else _with_common_folders(inner))
        images = [file for name in outer for file in classes[name]]
        nested = sum(file.count("/") > 1 for file in images)
        total = sum(map(len, classes.values()))
        if 2 * nested > len(images) and (2 * len(outer) >= len(inner) or 2 * nested > total):
            folders = [name for of in outer for name in inner[of]]
            holders = collections.Counter(map(simplified, folders))
            shared = {name for name in folders if is_single or holders[simplified(name)] > 1}
            return outer, sorted(shared)
    return [], []


def _with_common_folders(inner: Mapping[str, Iterable[str]]) -> set[str]:
    """Returns the outer folders that have two or more inner folders in common with another of them.

    Names of folders that differ as little as `similar` says are the same.
    """
    names = {of: collections.Counter(map(simplified, folders)) for of, folders in inner.items()}
    holders = collections.Counter(name for of in names for name in names[of])
    # Comparing each with each would be slow.
    candidates = [
        of
        for of in names
        if sum(count for name, count in names[of].items() if holders[name] > 1) > 1
    ]
    found = set[str]()
    for of in candidates:
        if of in found:
            continue
        others = (other for other in candidates if other != of)
        partner = next((other for other in others if (names[of] & names[other]).total() > 1), None)
        if partner is not None:
            found |= {of, partner}
    return found


def _note_on_file_names(classes: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns a note if the names of the images in a class say what is for training and testing."""
    for name, files in classes.items():
        if are_named_by_split([file.rpartition("/")[2] for file in files]):
            return [
                "names of files such as train_0.jpg and test_0.jpg, as in "
                f"{name}/, were not used to split"
            ]
    return []


def _ambiguous(layout: Layout, outer: Sequence[str], inner: Sequence[str]) -> str:
    """Returns a message on folders that hold the same folders, so that either may be the classes."""
    root, outside, inside = layout.train, _several(outer), _several(inner)
    if len(outer) == 1:
        way_out = f"name that folder, --config.data.folder={layout.train / outer[0]}"
        if layout.test:
            way_out = f"put them directly into {root} and {layout.test}"
        return (
            f"{root} holds a single class, {outside}/. If the {len(inner)} folders inside it ({inside}) "
            f"are the classes, {way_out}"
        )
    way_out = (
        "put the images for training into train/ and those for testing into test/, for example by "
        f"renaming two of {outside}, and move what is neither to another folder"
    )
    if layout.test:
        way_out = f"keep one of {outside}, and move the others to another folder"
    return (
        f"{root}: {outside} have the folders {inside} in common, and it is not clear which are the "
        f"classes. If {inside} are, {way_out}; if {outside} are, put the images of each directly into it"
    )


def _several(names: Sequence[str]) -> str:
    """Returns a list of names, of which only the first are named if they are many."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _why_empty(folder: Path) -> str:
    """Returns a problem for a class folder without images: what it holds, and the way out."""
    left_out = find_images(folder).left_out
    into = "put images into it or move it to another folder"
    if left_out:
        return f"{folder} holds no images but {describe(left_out, folder)}: {into}"
    if look(folder).folders:
        return f"{folder} holds only empty folders: {into}"
    return f"{folder} is empty: put images into it or remove it"


def _unpaired(layout: Layout, train: Iterable[str], test: Iterable[str]) -> list[str]:
    """Returns a problem for each class folder that one of the splits does not have."""
    problems, asked = [], set[str]()
    if layout.test is None:
        return []
    splits = (layout.train, sorted(train)), (layout.test, sorted(test))
    for (here, names), (there, others) in (splits, splits[::-1]):
        missing = [name for name in others if name not in names]
        for name in names:
            if name in others or name in asked:
                continue
            question = did_you_mean(here / name, there, missing)
            asked.add(similar(name, missing))
            problem = f"{here / name} has no counterpart in {there}"
            problems.append(f"{problem}: {question}" if question else problem)
    return problems

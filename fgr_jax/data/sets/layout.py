"""Which folders are classes and which are splits, from their names and from what is in them."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fgr_jax.data.image_files import Level, as_text, describe, is_fault, is_prepared, is_run, look
from fgr_jax.data.prepare.archives import is_archive
from fgr_jax.data.prepare.listing import LayoutNotFoundError
from fgr_jax.errors import UserError

_TRAIN = ("train", "training", "trainval", "trn")
# By precedence: "val" is for model selection.
_TEST = (
    *("test", "testing", "tests", "eval", "evaluation", "holdout"),
    *("val", "valid", "validation", "dev"),
)
# Words that tell nothing about the content of a folder.
_GENERIC = frozenset(
    {
        *("set", "sets", "split", "splits", "data", "dataset", "folder", "folders", "classes"),
        *("image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"),
    }
)
_JOINED = re.compile(f"({'|'.join((*_TRAIN, *_TEST))})({'|'.join(_GENERIC)})")  # "testset"
# Of the names of files: "train_0.jpg", "oak-test.png".
_AFFIX = re.compile(
    "^(?:({0})|({1}))(?![a-z])|(?<![a-z])(?:({0})|({1}))[.][a-z]+$".format(
        "|".join(_TRAIN), "|".join(_TEST)
    ),
    re.IGNORECASE,
)
_PART = re.compile(r"(?!(?:19|20)\d\d$)\d+|[a-z]")  # of a name, says which part of a split it is
_CLASS = "class"  # as the last word of a name, says that it is no split


class Layout(NamedTuple):
    """Where the folders of the classes are."""

    train: Path  # holds a folder for each class
    test: Path | None  # likewise; None: the images in `train` are yet to be split
    unused: list[Path]  # folders beside the splits
    notes: list[str]  # what was decided where the names alone do not tell


class _Split(NamedTuple):
    """A folder with the name of a split."""

    path: Path
    is_train: bool
    place: int  # in `_TRAIN` or `_TEST`
    rest: tuple[
        str, ...
    ]  # the other words of its name: "seg" of "seg_train", "2017" of "train2017"

    @property
    def is_certain(self) -> bool:
        """Whether the name says nothing else, unlike that of a class "train station"."""
        return all(word.isdigit() for word in self.rest)


def understand(root: Path, *, lenient: bool = False) -> Layout:
    """Finds the folders of the classes below `root`.

    A folder has the name of a split if a word of it is `train`, `test`, `val` or the like, in any case,
    as in `seg_train`, `TestSet` or `val2017`. Two such folders are the splits if they have class folders
    in common, perhaps one level further down in a folder of their own name. Without such a pair, the
    folders are classes, and so is one called `train` that holds images itself, like the others, or one
    whose name has other words, such as `train station`.

    Args:
      root: the folder of the user.
      lenient: whether only one is used of several folders that may be parts of one split.

    Raises:
      LayoutNotFoundError: there are no folders, only one split, or more than one possible meaning.
    """
    if is_run(root):
        raise UserError(
            f"{root} is the folder of a run (config.json, checkpoints/): move the images to "
            "another folder, or the run"
        )
    level = look(root)
    if is_prepared(root) and not level.folders:
        raise UserError(
            f"{root} is a prepared data set (dataset_info.json): name the folder of the images"
        )
    if not level.folders and not any(map(is_fault, level.left_out)):
        raise LayoutNotFoundError(_why_no_folders(root, level))
    folder, inside, beside = root, level, False
    while True:
        pair = None if beside else _pair(folder, inside.folders, lenient=lenient)
        if pair is not None:
            train, test = pair
            notes = [] if folder == root else [f"the splits are in {below(root, folder)}/"]
            unused = [path for path in inside.folders if path not in (train.path, test.path)]
            return Layout(_innermost(train), _innermost(test), unused, notes)
        if len(inside.folders) != 1 or _split(inside.folders[0]):
            break
        beside = beside or bool(inside.images)  # the images may be all that is in a class
        folder = inside.folders[0]
        inside = look(folder)
    notes = [] if beside else _notes_on_classes(folder, inside.folders)
    if folder != root and len(inside.folders) > 1:
        raise LayoutNotFoundError(
            f"{root} holds a single class, {below(root, level.folders[0])}/. If the "
            f"{len(inside.folders)} folders in {folder} are the classes, name that folder, "
            f"--config.data.folder={folder}"
        )
    return Layout(root, None, [], notes)


def validation_folder(layout: Layout) -> tuple[Path, Path] | None:
    """Returns an unused split for validation, and the folder of its classes, if there is one."""
    for path in layout.unused:
        split = _split(path)
        if split is not None and not split.is_train and split.place >= _TEST.index("val"):
            return path, _innermost(split)
    return None


def below(root: Path, path: Path) -> str:
    """Returns a path relative to a folder above it, as text."""
    return as_text(path.relative_to(root).as_posix())


def find_pair(folders: Iterable[str]) -> tuple[str, str] | None:
    """Returns two names that differ only in being for training and for testing, if there are any."""
    splits = [split for split in map(_split, map(Path, folders)) if split is not None]
    for train in splits:
        for test in splits:
            if train.is_train and not test.is_train and train.rest == test.rest:
                return train.path.name, test.path.name
    return None


def is_split(name: str) -> bool:
    """Returns whether a folder of this name may be a split."""
    return _split(Path(name)) is not None


def split_named(name: str) -> str:
    """Returns "train", "validation" or "test" if `name` says that and nothing else, or ""."""
    split = _split(Path(name.replace("/", " ")))
    if split is None or not split.is_certain:
        return ""
    if split.is_train:
        return "train"
    return "validation" if split.place >= _TEST.index("val") else "test"


def are_named_by_split(names: Sequence[str]) -> bool:
    """Returns whether some names begin or end with a word for training, and others for testing."""
    text = "\n".join(names).lower()
    if not any(word in text for word in _TRAIN):  # as in most data sets; the rest is slow
        return False
    found = {bool(match[1] or match[3]) for match in map(_AFFIX.search, names) if match}
    return len(found) == 2


def similar(name: str, others: Iterable[str]) -> str:
    """Returns the other name that differs in case, Unicode, spaces and zeros only, or ""."""
    return next((other for other in others if simplified(other) == simplified(name)), "")


def simplified(name: str) -> str:
    """Returns what names have in common that were probably meant to be the same."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"[\s_-]+", "", re.sub(r"\d+", lambda digits: str(int(digits[0])), folded))


def is_called_class(name: str) -> bool:
    """Returns whether the last word of a name says that the folder is a class."""
    return _words(name)[-1:] == [_CLASS]


def did_you_mean(path: Path, there: Path, names: Iterable[str]) -> str:
    """Returns a question if `path` was probably meant to be one of `names` in `there`, or ""."""
    other = similar(path.name, names)
    if not other:
        return ""
    visible = _composed(other) != _composed(path.name)
    found, meant = (path.name, other) if visible else (ascii(path.name), ascii(other))
    return f"did you mean {meant} in {there}, which is {found} in {path.parent}?"


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _words(name: str) -> list[str]:
    """Returns the words and numbers of a name: train, set, 2 of both "TrainSet2" and "trainset_2"."""
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words: list[str] = []
    for word in re.findall(r"[^\W\d_]+|\d+", separated):
        joined = _JOINED.fullmatch(word)
        words += joined.groups() if joined else [word]
    return words


def _split(path: Path) -> _Split | None:
    """Returns what the name of a folder says, or None if it is not that of a split."""
    words = _words(path.name)
    if is_called_class(path.name):
        return None
    trains = [_TRAIN.index(word) for word in words if word in _TRAIN]
    tests = [_TEST.index(word) for word in words if word in _TEST]
    rest = tuple(word for word in words if word not in (*_TRAIN, *_TEST, *_GENERIC))
    if trains and (not tests or min(tests) >= _TEST.index("val")):  # "train_val" is for training
        return _Split(path, True, min(trains), rest)
    if tests and not trains:
        return _Split(path, False, min(tests), rest)
    return None


def _innermost(split: _Split) -> Path:
    """Returns the folder that holds the classes: `seg_train/seg_train`, if that is all there is."""
    folder = split.path
    while True:
        level = look(folder)
        if len(level.folders) != 1 or level.images:
            return folder
        (inner,) = level.folders
        same = _split(inner)
        is_wrapper = set() < set(_words(inner.name)) <= _GENERIC
        if not is_wrapper and (same is None or same.is_train != split.is_train):
            return folder
        folder = inner


def _class_names(split: _Split) -> set[str]:
    return {path.name for path in look(_innermost(split)).folders}


def _pair(folder: Path, inside: Sequence[Path], *, lenient: bool) -> tuple[_Split, _Split] | None:
    """Returns the folders for training and testing among those in `folder`, or None.

    Raises:
      LayoutNotFoundError: it could be any of several.
    """
    splits = [split for split in map(_split, inside) if split is not None]
    if len({split.is_train for split in splits}) < 2:
        return None
    classes = {split.path: _class_names(split) for split in splits}
    pairs = [
        (train, test)
        for train in splits
        for test in splits
        if train.is_train and not test.is_train and classes[train.path] & classes[test.path]
        # "train_flipped" goes with "test", but "train station" not with "test tube".
        if train.rest == test.rest or train.is_certain or test.is_certain
    ]
    # "seg_train" goes with "seg_test" first, and "train" with "test".
    pairs = [(train, test) for train, test in pairs if train.rest == test.rest] or pairs
    if not pairs:
        return None
    best = min(test.place for _, test in pairs)
    pairs = [(train, test) for train, test in pairs if test.place == best]
    if len(pairs) > 1:
        names = ", ".join(sorted({f"{split.path.name}/" for pair in pairs for split in pair}))
        raise LayoutNotFoundError(
            f"{folder} holds {names}: it is not clear which are for training and "
            "testing; move the others to another folder"
        )
    ((train, test),) = pairs
    for used in () if lenient else (train, test):
        parts = [split.path.name + "/" for split in splits if _are_parts(split, used)]
        if parts:
            raise LayoutNotFoundError(
                f"{folder} holds {used.path.name}/ and {', '.join(parts)}, which may be parts of one "
                "split: put all their images into one folder, or move what is not to be used to another "
                "folder"
            )
    common = classes[train.path] & classes[test.path]
    others = [path for path in inside if _split(path) is None]
    alike = [path for path in others if common & {within.name for within in look(path).folders}]
    if len(alike) >= len(splits):
        raise LayoutNotFoundError(
            f"{folder}: {train.path.name}/ and {test.path.name}/ could be splits, "
            f"or classes like {alike[0].name}/, which holds the same folders: rename these two, "
            "or move the others to another folder"
        )
    return train, test


def _are_parts(split: _Split, other: _Split) -> bool:
    """Returns whether two splits of one kind differ only in a number or letter, as "train-001" does.

    Years do not count: "train2014" and "train2017" are two versions.
    """
    kept, others = (
        [word for word in each.rest if not _PART.fullmatch(word)] for each in (split, other)
    )
    is_same_kind = (split.is_train, split.place) == (other.is_train, other.place)
    return split.path != other.path and is_same_kind and kept == others


def _notes_on_classes(root: Path, folders: Sequence[Path]) -> list[str]:
    """Returns what to tell about folders that are classes in spite of their names.

    Raises:
      LayoutNotFoundError: one of them is called like a split and does not look like the other classes.
    """
    splits = [split for split in map(_split, folders) if split is not None]
    splits.sort(key=lambda split: (not split.is_train, split.place))
    others = [path for path in folders if _split(path) is None]
    are_all = not others and len({split.is_train for split in splits}) == 2
    notes, doubtful = [], []
    for split in splits:
        name = split.path.name
        if not split.is_certain and not are_all:
            notes.append(f"{name}/ is a class, not a split")
        elif (
            split.is_train and look(split.path).images and any(look(path).images for path in others)
        ):
            notes.append(
                f"{name}/ is a class, not a split: it holds images itself, like the others"
            )
        else:
            doubtful.append(split)
    for split in doubtful:
        for reason, paths in look(split.path).left_out.items():
            if is_fault(reason):
                raise UserError(f"{paths[0]}: {reason}; it is needed to tell splits from classes")
    if doubtful:
        raise LayoutNotFoundError(_why_no_splits(root, doubtful, others))
    return notes


def _why_no_folders(root: Path, level: Level) -> str:
    archives = [
        path.name for paths in level.left_out.values() for path in filter(is_archive, paths)
    ]
    others = f" but {describe(level.left_out, root)}" if level.left_out else ""
    if archives:
        return f"{root} holds {archives[0]} and no folders: unpack it"
    what = "no folders, only images" if level.images else "no folders"
    return f"{root} holds {what}{others}: put the images of each class in a folder of their own"


def _why_no_splits(root: Path, splits: Sequence[_Split], others: Sequence[Path]) -> str:
    """Returns a message on folders called like splits that neither splits nor classes can be."""
    names = " and ".join(split.path.name + "/" for split in splits)
    holds = f"{root} holds {names}" + (
        f" beside {len(others)} other folder{'s' * (len(others) > 1)}" if others else ""
    )
    needed = (
        "it needs both train/ and one of test/, val/ and so on, with the same folder for each class"
    )
    if len({split.is_train for split in splits}) == 2:
        needed = (
            "to be splits, they need class folders in common, and names that differ in nothing else"
        )
    for train in splits:
        for test in splits:
            if train.is_train and not test.is_train:
                there, tested = _innermost(test), _class_names(test)
                for name in sorted(_class_names(train)):
                    question = did_you_mean(_innermost(train) / name, there, tested)
                    if question:
                        return f"{holds}: {needed}: {question}"
    labeled = [split for split in splits if len(_class_names(split)) > 1]
    if labeled and not others and len({split.is_train for split in labeled}) == 1:
        folder = _innermost(labeled[0])
        rest = [f"{split.path.name}/" for split in splits if split not in labeled]
        predicted = " and ".join(rest)
        return (
            f"{holds}: {needed}. To hold out one image in five of {below(root, folder)}/ instead, "
            f"name it: --config.data.folder={folder}"
            + (f"; fgr_jax.predict takes images without labels, as in {predicted}" if rest else "")
        )
    renamed = f"{splits[0].path.name} {_CLASS}"
    return (
        f"{holds}: {needed}, or a folder for each class and no splits. If "
        f"{splits[0].path.name}/ is a class, rename it, for example to {renamed!r}"
    )

"""Splits and folds by hashes of names, in which images that are added move (almost) no others.

Images of one group form a unit, which is never divided; an image without a group is a unit of its own.
A unit has a hash in [0, 1), that of the group's name or of the image's. Nothing depends on the order of
the images.
"""

import collections
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SIDES = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(3)


class Images(NamedTuple):
    """The N images that are split."""

    names: Sequence[str]
    labels: Sequence[int]
    groups: Sequence[str]  # "" for an image that is not in a group
    class_names: Sequence[str]


class _Unit(NamedTuple):
    hash: float
    name: str
    place: int  # tells images of the same name apart
    labels: tuple[int, ...]  # of its images: the most frequent first, then the first of the classes


def sides(
    images: Images, *, test_share: float, validation_share: float = 0.0
) -> npt.NDArray[np.int8]:
    """Returns the index into `SIDES` of each image, `[N]`.

    A unit is for testing if its hash is less than `test_share`, and for validation if it is less than
    the sum of both shares. Then every class gets a training image, one for testing if it has two units,
    and one for validation if it has three (both only where the share is not 0). The unit that moves for
    that is the one whose hash is nearest to the limit. Where units have images of several classes, this
    is done as far as it takes no class its last unit of a side.

    Where units have images of one class each, a unit that is added to a class moves at most one other,
    or two with a validation share, and only of that class.
    """
    units, unit_of = _units(images)
    limits = {
        TEST: (0.0, test_share),
        VALIDATION: (test_share, test_share + validation_share),
        TRAIN: (test_share + validation_share, 1.0),
    }
    side = [
        next((each for each in (TEST, VALIDATION) if unit.hash < limits[each][1]), TRAIN)
        for unit in units
    ]
    of_class: dict[int, list[int]] = collections.defaultdict(list)
    for index, unit in enumerate(units):
        for label in unit.labels:
            of_class[label].append(index)
    needed = {TRAIN: 1, TEST: 2 if test_share else 0, VALIDATION: 3 if validation_share else 0}
    wanted = {
        label: [each for each, least in needed.items() if least and len(members) >= least]
        for label, members in of_class.items()
    }
    counts = {
        label: collections.Counter(side[index] for index in members)
        for label, members in of_class.items()
    }

    def is_free(index: int) -> bool:
        """Returns whether no class needs the unit on its side."""
        return all(
            counts[label][side[index]] > 1 or side[index] not in wanted[label]
            for label in units[index].labels
        )

    for label in sorted(of_class):
        for target in wanted[label]:
            if counts[label][target]:
                continue
            low, high = limits[target]
            candidates = [
                (max(low - units[index].hash, units[index].hash - high), *units[index][:3], index)
                for index in of_class[label]
                if is_free(index)
            ]
            if candidates:
                moved = min(candidates)[-1]
                for each in units[moved].labels:
                    counts[each][side[moved]] -= 1
                    counts[each][target] += 1
                side[moved] = target
    return np.array(side, np.int8)[unit_of]


def folds(images: Images, count: int) -> npt.NDArray[np.int64]:
    """Returns the fold of each image, from 0 to `count` − 1, `[N]`.

    The units of a class in the order of their hashes are divided into `count` parts, whose sizes differ
    by at most one; a unit with images of several classes counts for the most frequent of them. A unit
    that is added moves at most `count` − 1 others, one at each end of two parts, and only of its class.
    """
    units, unit_of = _units(images)
    fold = np.zeros(len(units), np.int64)
    of_class = collections.defaultdict(list)
    for index, unit in enumerate(units):
        of_class[unit.labels[0]].append((*unit[:3], index))
    for label, members in of_class.items():
        # Another first fold in each class, or the first ones would have the most images.
        first = int(_hash(images.class_names[label]) * count)
        for rank, (*_, index) in enumerate(sorted(members)):
            fold[index] = (rank * count // len(members) + first) % count
    return fold[unit_of]


def _units(images: Images) -> tuple[list[_Unit], npt.NDArray[np.int64]]:
    """Returns the units, and the index of that of each image."""
    index_of: dict[tuple[str, int], int] = {}
    keys = [(group, -1) if group else ("", i) for i, group in enumerate(images.groups)]
    unit_of = np.array([index_of.setdefault(key, len(index_of)) for key in keys], np.int64)
    labels = [collections.Counter[int]() for _ in index_of]
    for index, label in zip(unit_of, images.labels, strict=True):
        labels[index][label] += 1
    units = []
    for (group, place), counts in zip(index_of, labels, strict=True):
        name = group or images.names[place]
        ordered = sorted(counts, key=lambda label: (-counts[label], label))
        units.append(_Unit(_hash(name), name, place, tuple(ordered)))
    return units, unit_of


def _hash(name: str) -> float:
    """Returns a number in [0, 1) that is about evenly distributed."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48

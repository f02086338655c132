"""Splits and folds by hashes of names: what is guaranteed for any names, classes and groups."""

import collections
import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.data.prepare.hash_split import TEST, TRAIN, VALIDATION, Images, folds, sides

CLASS_NAMES = [f"class {label}" for label in range(12)]
SHARES = st.sampled_from([(0.2, 0.0), (0.2, 0.1), (0.5, 0.4), (0.01, 0.01), (0.0, 0.3), (0.9, 0.0)])


def images(entries: list[tuple[str, int, str]]) -> Images:
    names, labels, groups = zip(*entries, strict=True)
    return Images(names, labels, groups, CLASS_NAMES)


@st.composite
def entries(draw: st.DrawFn, *, shared: bool = False, grouped: bool = True) -> list:
    """Names, labels and groups; with `shared`, a group may have images of several classes."""
    count = draw(st.integers(1, 60))
    labels = draw(st.lists(st.integers(0, draw(st.integers(0, 5))), min_size=count, max_size=count))
    choices = st.integers(0, draw(st.sampled_from([2, 8, 30])) if grouped else 0)
    numbers = draw(st.lists(choices, min_size=count, max_size=count))
    salt = draw(st.integers(0, 10**6))
    return [
        (f"{salt}/{i}", label, (f"{salt}{'' if shared else label}g{number}" if number else ""))
        for i, (label, number) in enumerate(zip(labels, numbers, strict=True))
    ]


def units_of(found: list[tuple[str, int, str]]) -> dict[int, set[str]]:
    of_class = collections.defaultdict(set)
    for name, label, group in found:
        of_class[label].add(group or f"image {name}")
    return of_class


@given(entries(), SHARES)
def test_each_class_has_what_its_number_of_units_allows(
    found: list, shares: tuple[float, float]
) -> None:
    side = sides(images(found), test_share=shares[0], validation_share=shares[1])
    for label, units in units_of(found).items():
        of_class = {int(s) for s, (_, other, _) in zip(side, found, strict=True) if other == label}
        assert TRAIN in of_class
        assert (TEST in of_class) >= (len(units) >= 2 and shares[0] > 0)
        assert (VALIDATION in of_class) >= (len(units) >= 3 and shares[1] > 0)
        if len(units) == 1:
            assert of_class == {TRAIN}
    assert shares[0] or TEST not in side
    assert shares[1] or VALIDATION not in side


@given(entries(shared=True), SHARES, st.integers(2, 6), st.randoms(use_true_random=False))
def test_groups_are_whole_and_the_order_does_not_matter(
    found: list, shares: tuple[float, float], count: int, rng: random.Random
) -> None:
    options = {"test_share": shares[0], "validation_share": shares[1]}
    order = list(range(len(found)))
    rng.shuffle(order)
    mixed = images([found[i] for i in order])
    for one, other in (
        (sides(images(found), **options), sides(mixed, **options)),
        (folds(images(found), count), folds(mixed, count)),
    ):
        np.testing.assert_array_equal(one[order], other)
        of_group = collections.defaultdict(set)
        for value, (_, _, group) in zip(one, found, strict=True):
            of_group[group].add(int(value))
        assert all(len(values) == 1 for group, values in of_group.items() if group)


@given(entries(shared=True), SHARES)
def test_every_class_can_be_trained_on_unless_it_shares_all_its_groups(
    found: list, shares: tuple[float, float]
) -> None:
    side = sides(images(found), test_share=shares[0], validation_share=shares[1])
    units = units_of(found)
    holders = collections.Counter(unit for of_class in units.values() for unit in of_class)
    for label, of_class in units.items():
        own = sum(holders[unit] == 1 for unit in of_class)
        here = {int(s) for s, (_, other, _) in zip(side, found, strict=True) if other == label}
        assert TRAIN in here or own < len(of_class)


@settings(max_examples=300)
@given(entries(), SHARES, st.integers(0, 5), st.integers(0, 10**6), st.integers(2, 6))
def test_an_image_that_is_added_moves_almost_none(
    found: list, shares: tuple[float, float], label: int, salt: int, count: int
) -> None:
    more = [*found, (f"new {salt}", label, "")]
    options = {"test_share": shares[0], "validation_share": shares[1]}

    def moved(before: np.ndarray, after: np.ndarray) -> set[str]:
        """The units of the class that moved; none of the others did."""
        units = set()
        for index, (name, of, group) in enumerate(found):
            if before[index] != after[index]:
                assert of == label
                units.add(group or name)
        return units

    changed = moved(sides(images(found), **options), sides(images(more), **options))
    assert len(changed) <= 1 + (shares[1] > 0)
    assert len(moved(folds(images(found), count), folds(images(more), count))) <= count - 1


def test_only_units_that_are_needed_move() -> None:
    """Without the minimum, the side is that of the hash, computed here by itself."""
    found = [(f"oak/{index}.jpg", 0, "") for index in range(2000)]
    side = sides(images(found), test_share=0.2, validation_share=0.1)
    for (name, _, _), each in zip(found, side, strict=True):
        value = int(hashlib.sha256(name.encode()).hexdigest()[:12], 16) / 16**12
        assert each == (TEST if value < 0.2 else VALIDATION if value < 0.3 else TRAIN)
    for share, of in ((0.2, TEST), (0.1, VALIDATION)):
        assert abs(np.mean(side == of) - share) < 4 * (share * (1 - share) / 2000) ** 0.5


@given(entries(), st.integers(2, 6))
def test_folds_are_stratified(found: list, count: int) -> None:
    fold = folds(images(found), count)
    assert set(fold) <= set(range(count))
    for label in units_of(found):
        per_unit = {
            group or name: int(value)
            for value, (name, of, group) in zip(fold, found, strict=True)
            if of == label
        }
        sizes = [list(per_unit.values()).count(each) for each in range(count)]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("images_of_each", [1, 3, 6])
def test_small_classes_do_not_all_fill_the_same_fold(images_of_each: int) -> None:
    names = [f"class {label}" for label in range(400)]
    found = [(f"{label}/{i}", label, "") for label in range(400) for i in range(images_of_each)]
    columns = list(zip(*found, strict=True))
    fold = folds(Images(columns[0], columns[1], columns[2], names), 5)
    sizes = np.bincount(fold, minlength=5)
    expected = 400 * images_of_each / 5
    assert np.all(np.abs(sizes - expected) < 5 * (400 * 0.2 * 0.8) ** 0.5)

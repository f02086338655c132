"""The fixed views of an image, and the one that an epoch takes."""

import itertools
from collections import Counter

import numpy as np
import pytest

from fgr_jax.config import Data
from fgr_jax.data.images import Canvas
from fgr_jax.features.views import fixed_views, view_at


@pytest.mark.parametrize("augmentation", ["flip", "dihedral"])
def test_view_v_of_an_image_depends_on_nothing_else(augmentation: str) -> None:
    data = Data(resize=40, crop=32, augmentation=augmentation)
    few, many = fixed_views(data, 2, 7), fixed_views(data, 5, 7)
    assert many.places[:2] == few.places
    assert many.symmetries[:2] == few.symmetries
    assert many.example == 7
    drawn = {
        (fixed_views(data, 5, i).places, fixed_views(data, 5, i).symmetries) for i in range(50)
    }
    assert len(drawn) == 50


def test_views_are_distributed_as_in_training_on_images() -> None:
    """Every crop and symmetry, equally often."""
    data = Data(resize=34, crop=32, augmentation="dihedral")
    views = [fixed_views(data, 4, image) for image in range(2000)]
    canvas = Canvas.of(data, 50, 40)
    offsets = Counter(canvas.offset(place) for view in views for place in view.places)
    symmetries = Counter(itertools.chain.from_iterable(view.symmetries for view in views))
    assert set(offsets) == set(itertools.product(range(3), range(3)))
    assert set(symmetries) == set(range(8))
    for counts, expected in ((offsets, 8000 / 9), (symmetries, 1000)):
        chi2 = sum((count - expected) ** 2 / expected for count in counts.values())
        assert chi2 < 30  # its expectation is 8 and 7
    flips = Counter(s for i in range(500) for s in fixed_views(Data(), 4, i).symmetries)
    assert set(flips) == {0, 4}


def test_every_view_is_taken_once_in_as_many_epochs() -> None:
    orders = set()
    for seed, image in itertools.product(range(3), range(40)):
        taken = [view_at(seed, 4, image, epoch) for epoch in range(12)]
        for start in (0, 4, 8):
            assert sorted(taken[start : start + 4]) == [0, 1, 2, 3]
        orders.add(tuple(taken))
    assert len(orders) > 110  # of (4!)³, nearly every seed and image has its own
    firsts = np.bincount([view_at(0, 4, image, 0) for image in range(2000)])
    assert abs(firsts - 500).max() < 100
    assert view_at(5, 1, 3, 9) == 0

"""TrivialAugment: draws, and operations against torchvision's (`goldens/make_trivial_augment.py`)."""

import dataclasses
import functools
from collections import Counter
from pathlib import Path

import grain
import numpy as np
import pytest
from goldens import recipe
from tiny_run import QUIET

from fgr_jax.config import Config, Data, Runtime, validate
from fgr_jax.data import images
from fgr_jax.data.augmentation import BINS, OPERATIONS, Distortion, View, random_view
from fgr_jax.data.pipeline import Share, evaluation_batches, training_batches
from fgr_jax.data.source import open_splits
from fgr_jax.errors import UserError
from fgr_jax.random_streams import Stream, stream_seed


def test_operations_are_torchvisions_to_the_pixel() -> None:
    with np.load(Path(__file__).parent.parent / "goldens" / "trivial_augment.npz") as file:
        goldens = dict(file)
    image = goldens.pop("image")
    places = recipe.places(image.shape[0] * image.shape[1])[:64]
    # By their names there, such as "TranslateX".
    names = {name.replace("_", ""): name for name in OPERATIONS}
    assert [names[name.lower()] for name in goldens] == list(OPERATIONS)
    before = image.copy()
    for name, expected in goldens.items():
        signs, strengths = expected.shape[:2]
        for is_negative in (False, True):
            for place in range(BINS):
                distortion = Distortion(names[name.lower()], place, is_negative)
                ours = images.distorted(image, distortion)
                assert ours.shape == image.shape
                assert ours.dtype == image.dtype
                # Without a sign or a strength, what is drawn for it has no effect.
                theirs = expected[is_negative * (signs - 1), place % strengths]
                np.testing.assert_array_equal(
                    ours.reshape(-1, 3)[places], theirs, err_msg=str(distortion)
                )
    np.testing.assert_array_equal(image, before)


def test_operations_strengths_and_directions_are_drawn_equally_often() -> None:
    data = Data(resize=40, crop=32, trivial_augment=True)
    rng = np.random.default_rng(0)
    drawn = [random_view(data, 0, rng).distortions[0] for _ in range(14_000)]
    for values, of_each in ((OPERATIONS, 0), (range(BINS), 1), ((False, True), 2)):
        counts = Counter(distortion[of_each] for distortion in drawn)
        assert set(counts) == set(values)
        expected = len(drawn) / len(counts)
        assert all(abs(count - expected) < 4.5 * expected**0.5 for count in counts.values())
    pairs = Counter((each.operation, each.is_negative) for each in drawn)
    assert all(abs(count - 500) < 4.5 * 500**0.5 for count in pairs.values())


@pytest.mark.parametrize("method", ["squash", "crop"])
def test_the_crops_of_the_stream_without_it_are_distorted(data_dir: Path, method: str) -> None:
    """Each as drawn after all else, anew in every epoch; test images are not."""
    plain = Data(
        name="synthetic/tiny", data_dir=str(data_dir), resize=36, crop=32, resize_method=method
    )
    data = dataclasses.replace(plain, trivial_augment=True)
    source, test = open_splits(plain, QUIET)
    share, runtime = Share(8), Runtime(decode_threads=2)
    steps = range(14)
    without, with_it = (
        list(training_batches(source, each, runtime, share, seed=5, steps=steps))
        for each in (plain, data)
    )
    order = grain.MapDataset.range(len(source)).shuffle(seed=stream_seed(5, Stream.ORDER))
    views = order.repeat(3).random_map(
        functools.partial(random_view, data), seed=stream_seed(5, Stream.AUGMENTATION)
    )
    of_examples: dict[int | None, set[Distortion]] = {}
    changed = 0
    for step, (one, other) in enumerate(zip(without, with_it, strict=True)):
        for name in ("label", "mask", "symmetry"):
            np.testing.assert_array_equal(one[name], other[name])
        for row in range(8):
            view: View = views[8 * step + row]
            (distortion,) = view.distortions
            of_examples.setdefault(view.example, set()).add(distortion)
            expected = images.distorted(one["image"][row], distortion)
            np.testing.assert_array_equal(other["image"][row], expected)
            changed += (expected != one["image"][row]).any()
    assert changed > 80  # of 112
    assert min(map(len, of_examples.values())) == 2  # in two epochs, and a part of a third
    tested, also_tested = (
        [batch["image"] for batch in evaluation_batches(test, each, runtime, share)]
        for each in (plain, data)
    )
    np.testing.assert_array_equal(tested, also_tested)


def test_it_is_refused_with_cached_features() -> None:
    config = Config()
    config.data.name, config.data.trivial_augment = "cub", True
    validate(config)
    config.network.frozen, config.data.views = "backbone", 2
    with pytest.raises(UserError, match=r"trivial_augment=True: must be False with data\.views"):
        validate(config)

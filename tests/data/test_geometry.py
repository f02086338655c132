"""Canvases of images, their sizes and pixels: against torchvision's (see `goldens/make_geometry.py`)."""

import functools
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from goldens import recipe
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from fgr_jax.config import Data
from fgr_jax.data import images
from fgr_jax.data.augmentation import Place, random_view

METHODS = ["squash", "crop", "pad"]
SIZE, CROP = 96, 80  # of the goldens
COLOR = (124, 116, 104)


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent.parent / "goldens" / "geometry.npz") as file:
        return dict(file)


def test_sizes_are_torchvisions(goldens: dict[str, np.ndarray]) -> None:
    enlarged = 0
    for width, height, size, *expected in goldens["sizes"].tolist():
        data = Data(resize=size, crop=1, resize_method="crop")
        canvas = images.Canvas.of(data, height, width)
        assert [canvas.horizontal.size, canvas.vertical.size] == expected[:2]
        data.resize_method = "pad"
        canvas = images.Canvas.of(data, height, width)
        resized = canvas.horizontal.resized, canvas.vertical.resized
        assert resized == (tuple(expected[2:]) if any(expected[2:]) else resized)
        assert max(resized) == size
        assert min(resized) >= 1
        enlarged += size > max(width, height)
    assert 100 < enlarged < 300


@pytest.mark.parametrize("method", ["crop", "pad"])
def test_five_crops_are_torchvisions(goldens: dict[str, np.ndarray], method: str) -> None:
    """But for the interpolation, which differs by as much as in a square."""
    names = [name.removesuffix(f"/{method}") for name in goldens if name.endswith(f"/{method}")]
    assert len(names) == 6
    places = recipe.places(CROP * CROP)[:300]
    data = Data(resize=SIZE, crop=CROP, resize_method=method)
    for name in names:
        encoded = goldens[f"{name}/bytes"].tobytes()
        crops = images.test_crops(encoded, data, 5, COLOR)
        ours = crops.reshape(5, -1, 3)[:, places].astype(int)
        theirs = goldens[f"{name}/{method}"].astype(int)
        assert np.abs(ours - theirs).mean((1, 2)).max() < 0.35, name
        is_margin = (theirs == COLOR).all(-1)
        assert is_margin.any() == (method == "pad"), name
        np.testing.assert_array_equal(ours[is_margin], theirs[is_margin])
        center = images.test_crops(encoded, data, 1, COLOR)
        np.testing.assert_array_equal(center, crops[-1:])


sides = st.integers(1, 400)


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    shape=st.tuples(sides, sides),
    size=st.integers(1, 60),
    less=st.integers(0, 30),
    draws=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
)
def test_every_crop_lies_on_its_canvas(
    method: str, shape: tuple[int, int], size: int, less: int, draws: tuple[float, float]
) -> None:
    data = Data(resize=size, crop=max(1, size - less), resize_method=method)
    canvas = images.Canvas.of(data, *shape)
    axes = canvas.vertical, canvas.horizontal
    assert min(axis.size for axis in axes) == size
    for axis, side in zip(axes, shape, strict=True):
        assert 0 <= axis.start <= axis.size - axis.resized
        scale = {"squash": size / side, "crop": size / min(shape), "pad": size / max(shape)}
        assert axis.resized == max(1, int(side * scale[method] + 1e-9))
        # Margins are equal, but for a pixel.
        assert abs((axis.size - axis.resized - axis.start) - axis.start) <= 1
    for place in (*images.test_places(5), Place(*draws, is_drawn=True)):
        for offset, axis in zip(canvas.offset(place), axes, strict=True):
            assert 0 <= offset <= axis.size - data.crop
    crops = images.crops_at(np.zeros((*shape, 3), np.uint8), data, images.test_places(5), COLOR)
    assert crops.shape == (5, data.crop, data.crop, 3)


@pytest.mark.parametrize("method", METHODS)
def test_random_crops_take_every_place_equally_often(method: str) -> None:
    data = Data(resize=12, crop=10, resize_method=method)
    rng = np.random.default_rng(0)
    places = [random_view(data, 0, rng).places[0] for _ in range(4000)]
    for shape in ((30, 40), (40, 30), (12, 12)):
        canvas = images.Canvas.of(data, *shape)
        counts = np.zeros((canvas.vertical.size - 9, canvas.horizontal.size - 9))
        for place in places:
            counts[canvas.offset(place)] += 1
        expected = 4000 / counts.size
        assert counts.size == {"crop": 21 if shape != (12, 12) else 9}.get(method, 9)
        assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected)


def test_the_draws_of_squash_are_those_of_offsets_in_pixels() -> None:
    """Those of the versions before, of which runs are resumed: top, left and the symmetry."""
    # Of 49 places, some would be lost to rounding if shares were those of their edges.
    for method, margin in itertools.product(("squash", "pad"), (64, 48, 0)):
        crop = 512 - margin
        data = Data(resize=512, crop=crop, resize_method=method, augmentation="dihedral")
        canvas = images.Canvas.of(data, 300, 400)
        for seed in range(200):
            view = random_view(data, 5, np.random.default_rng(seed))
            rng = np.random.default_rng(seed)
            offset = tuple(int(rng.integers(margin, endpoint=True)) for _ in range(2))
            assert canvas.offset(view.places[0]) == offset
            assert view.symmetries == (int(rng.integers(8)),)


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    shape=st.tuples(st.integers(40, 300), st.integers(40, 300)),
    dot=st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_a_pixel_is_where_a_bright_dot_lands(
    method: str, shape: tuple[int, int], dot: tuple[float, float]
) -> None:
    data = Data(resize=120, crop=104, resize_method=method)
    canvas = images.Canvas.of(data, *shape)
    y, x = (round(share * (side - 1)) for share, side in zip(dot, shape, strict=True))
    image = np.zeros((*shape, 3), np.uint8)
    image[y - 3 : y + 4, x - 3 : x + 4] = 255
    for place in images.test_places(5):
        top, left = canvas.offset(place)
        expected = (
            canvas.vertical.in_crop(y, shape[0], top),
            canvas.horizontal.in_crop(x, shape[1], left),
        )
        if not all(25 < each < 79 for each in expected):
            continue
        (cut,) = images.crops_at(image, data, [place], (0, 0, 0))
        bright = cut[:, :, 0].astype(float)
        rows, columns = np.indices(bright.shape)
        found = (bright * rows).sum() / bright.sum(), (bright * columns).sum() / bright.sum()
        assert found == pytest.approx(expected, abs=0.15)


def test_long_images_are_refused_in_one_line() -> None:
    """Where the short side is resized: the canvas would have more than a quarter of max_pixels."""
    data = Data(resize=20, crop=16, resize_method="crop", max_pixels=4 * 20 * 100)
    assert images.Canvas.of(data, 20, 100).horizontal.size == 100
    for height, width, size in ((20, 101, "101 × 20"), (202, 40, "20 × 101")):
        with pytest.raises(images.ImageError, match="resize_method=crop") as caught:
            images.Canvas.of(data, height, width)
        assert str(caught.value) == (
            f"has {width} × {height} pixels, which --config.data.resize_method=crop makes {size}, more "
            "than a quarter of --config.data.max_pixels=8000"
        )
    for method in ("squash", "pad"):
        data.resize_method = method
        images.Canvas.of(data, 1, 10_000)


def encode(height: int, width: int, form: str, turned: bool = False) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (9, 90, 200)).save(buffer, form, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("cut_bottom", [0, 8])
def test_preparation_refuses_what_training_would(form: str, turned: bool, cut_bottom: int) -> None:
    """Also where a part is cut off the bottom of an image that is stored upright or turned."""
    turned &= form != "BMP"  # which has no orientation
    data = Data(resize=20, crop=16, resize_method="crop", max_pixels=8000, cut_bottom=cut_bottom)
    refused = 0
    for height, width in ((20, 100), (20, 101), (60, 12), (70, 12), (72, 12), (8, 100), (12, 40)):
        encoded = encode(height, width, form, turned)
        problems = {
            problem_of(functools.partial(images.test_crops, encoded, data, 1, COLOR)),
            problem_of(functools.partial(images.check_readable, encoded, data, whole=True)),
            problem_of(functools.partial(images.check_readable, encoded, data, whole=False)),
        }
        assert len(problems) == 1, problems
        refused += problems != {""}
    assert 0 < refused < 7


def problem_of(read: Callable[[], Any]) -> str:
    try:
        read()
    except images.ImageError as error:
        return str(error)
    return ""


@settings(max_examples=100, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
    size=st.integers(1, 60),
    quarters=st.integers(1, 40),
)
def test_a_jpeg_that_is_decoded_smaller_is_not_enlarged(
    shape: tuple[int, int], size: int, quarters: int
) -> None:
    """Of as many pixels as `max_pixels` leaves: a canvas that is not refused has no more."""
    limit = 4 * quarters * size**2
    height, width = shape
    reduction = 1
    while reduction < 8 and -(-height // reduction) * -(-width // reduction) > limit:
        reduction *= 2
    assume(reduction > 1)
    height, width = -(-height // reduction), -(-width // reduction)
    assume(height * width <= limit)
    try:
        canvas = images.Canvas.of(
            Data(resize=size, crop=1, resize_method="crop", max_pixels=limit), height, width
        )
    except images.ImageError:
        return
    # Halving rounds up, and the canvas rounds down.
    assert canvas.vertical.size * canvas.horizontal.size <= height * width + height + width


def test_the_shares_of_an_image_that_the_documentation_states() -> None:
    text = (Path(__file__).parent.parent.parent / "docs" / "data.md").read_text()
    for method in METHODS:
        row = re.search(rf"^\| `{method}` \|.*?\| ([\d/ ]+)% \|", text, re.MULTILINE)
        assert row is not None
        stated = [int(percent) for percent in row[1].split(" / ")]
        for shape, percent in zip(((600, 600), (450, 600), (300, 600)), stated, strict=True):
            canvas = images.Canvas.of(Data(resize_method=method), *shape)
            share = 1.0
            axes = (canvas.vertical, canvas.horizontal)
            for axis, begin in zip(axes, canvas.offset(images.CENTER), strict=True):
                first = max(begin, axis.start)
                last = min(begin + canvas.crop, axis.start + axis.resized)
                share *= (last - first) / axis.resized
            assert abs(100 * share - percent) <= 0.5001
    limit = re.search(r"of more than (\d+):1 for 512 pixels", text)
    assert limit is not None
    ratio = int(limit[1])
    data = Data(resize_method="crop")
    images.Canvas.of(data, 10, 10 * ratio)
    with pytest.raises(images.ImageError):
        images.Canvas.of(data, 10, 10 * (ratio + 1))

"""Decoding, resizing and cropping of real encoded images."""

import io
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fgr_jax.config import Data
from fgr_jax.data import images


@pytest.fixture
def smooth() -> images.Image:
    """A smooth image, 60×80, so that JPEG changes little."""
    rows, columns = np.mgrid[0:60, 0:80]
    channels = [rows * 4, columns * 3, 255 - rows - columns]
    return np.stack(channels, -1).astype(np.uint8)


def encode(pixels: images.Image, suffix: str) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else []
    return cv2.imencode(suffix, pixels[:, :, ::-1], quality)[1].tobytes()


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    new_height=st.sampled_from([36, 97, 144, 512]),
    longer=st.sampled_from([0, 0, 1, 50]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_crop_that_is_resized_alone_is_that_of_the_whole_image_to_the_bit(
    data: st.DataObject, new_height: int, longer: int, seed: int
) -> None:
    size = new_height, new_height + longer
    crop_size = data.draw(st.integers(1, new_height))
    top, left = (data.draw(st.integers(0, side - crop_size)) for side in size)
    height, width = (data.draw(st.integers(1, side + 20)) for side in size)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(
        images.resize_and_crop(image, *size, top, left, crop_size),
        images.crop(images.resize(image, *size), top, left, crop_size),
    )


def test_a_crop_so_small_that_opencv_would_resize_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (116, 124, 3), np.uint8)
    np.testing.assert_array_equal(
        images.resize_and_crop(image, 144, 144, 0, 1, 1),
        images.resize(image, 144, 144)[:1, 1:2],
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_decode_gives_rgb(smooth: images.Image, suffix: str) -> None:
    decoded = images.decode(encode(smooth, suffix))
    assert decoded.shape == smooth.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - smooth).mean() < 3


def test_gray_and_16_bit_images_become_rgb_of_8_bits() -> None:
    gray = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    decoded = images.decode(cv2.imencode(".png", gray)[1].tobytes())
    np.testing.assert_array_equal(decoded, np.repeat((gray // 257)[..., None], 3, -1))


def in_all_formats(pixels: images.Image) -> dict[str, bytes]:
    """The formats that users have, written by Pillow."""
    image = Image.fromarray(pixels)
    other = Image.fromarray(255 - pixels)
    transparent = image.copy()
    transparent.putalpha(128)
    several = {"save_all": True, "append_images": [other]}

    def written(kind: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002
        buffer = io.BytesIO()
        kind.save(buffer, format, **options)
        return buffer.getvalue()

    formats = {
        "jpeg": written(image, "JPEG"),
        "progressive jpeg": written(image, "JPEG", progressive=True),
        "gray jpeg": written(image.convert("L"), "JPEG"),
        "cmyk jpeg": written(image.convert("CMYK"), "JPEG"),
        "png": written(image, "PNG"),
        "gray png": written(image.convert("L"), "PNG"),
        "black and white png": written(image.convert("1"), "PNG"),
        "palette png": written(image.quantize(64), "PNG"),
        "transparent png": written(transparent, "PNG"),
        "transparent gray png": written(image.convert("LA"), "PNG"),
        "animated png": written(image, "PNG", **several),
        "webp": written(image, "WEBP"),
        "lossless webp": written(image, "WEBP", lossless=True),
        "transparent webp": written(transparent, "WEBP", lossless=True),
        "animated webp": written(image, "WEBP", lossless=True, **several),
        "bmp": written(image, "BMP"),
        "gif": written(image, "GIF"),
        "animated gif": written(image, "GIF", **several),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        for format in ("JPEG", "PNG", "WEBP"):  # noqa: A001
            formats[f"{format} of orientation {orientation}"] = written(image, format, exif=exif)
    return formats


def test_every_format_is_decoded_as_pillow_does_it(smooth: images.Image) -> None:
    for name, data in in_all_formats(smooth).items():
        images.check(data)
        decoded = images.decode(data).astype(int)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        expected = np.asarray(upright.convert("RGB"))
        assert decoded.shape == expected.shape, name
        assert np.abs(decoded - expected).max() <= (2 if "cmyk" in name else 0), name


def test_every_format_cut_off_is_found_without_decoding(smooth: images.Image) -> None:
    for name, data in in_all_formats(smooth).items():
        # The first frame of a GIF is complete before its end.
        ends = [] if "gif" in name else [len(data) * 9 // 10, len(data) - 1]
        for kept in (10, len(data) // 3, *ends):
            with pytest.raises(images.ImageError, match="is "):
                images.check(data[:kept])


def test_what_was_checked_before_is_decoded_alike(smooth: images.Image) -> None:
    for name, data in in_all_formats(smooth).items():
        decoded = images.decode(data, checked=True)
        np.testing.assert_array_equal(decoded, images.decode(data), err_msg=name)
        with pytest.raises(images.ImageError):
            images.decode(data[: len(data) // 3], checked=True)


def test_rows_are_cut_off_the_bottom(smooth: images.Image) -> None:
    png = in_all_formats(smooth)["png"]
    np.testing.assert_array_equal(images.decode(png, cut_bottom=20), images.decode(png)[:-20])
    with pytest.raises(images.ImageError, match=r"high, of which 60 .*--config\.data\.cut_bottom"):
        images.decode(png, cut_bottom=60)
    turned = in_all_formats(smooth)["JPEG of orientation 6"]  # 80 pixels high
    for data, height in ((png, 60), (turned, 80)):
        images.check(data, cut_bottom=height - 1)
        with pytest.raises(images.ImageError, match=f"is {height} pixels high"):
            images.check(data, cut_bottom=height)


def exif_orientation(value: int) -> bytes:
    """A JPEG's APP1 segment that holds nothing but the orientation."""
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + bytes([value, 0, 0, 0]) + b"\0" * 4
    body = b"Exif\0\0" + tiff
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body


def test_exif_orientation_is_honored(smooth: images.Image) -> None:
    data = encode(smooth, ".jpg")
    turned = images.decode(data[:2] + exif_orientation(6) + data[2:])
    assert turned.shape == (80, 60, 3)
    np.testing.assert_array_equal(turned, np.rot90(images.decode(data), -1))


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.995])
def test_a_truncated_image_is_an_error(suffix: str, kept: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encode(noise, suffix)
    with pytest.raises(images.ImageError, match="is truncated"):
        images.decode(data[: int(len(data) * kept)])


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_an_error(smooth: images.Image) -> None:
    thumbnail = encode(smooth[:8, :8], ".jpg")
    segment = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    data = encode(smooth, ".jpg")
    whole = data[:2] + segment + data[2:]
    assert images.decode(whole).shape == smooth.shape
    with pytest.raises(images.ImageError, match="is truncated"):
        images.decode(whole[:-20])


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"mode": "L"}, {"mode": "CMYK"}])
def test_a_jpeg_whose_pixels_end_too_early_is_an_error_if_strict(options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    image, buffer = Image.fromarray(noise).convert(options.pop("mode", "RGB")), io.BytesIO()
    image.save(buffer, "JPEG", **options)
    data, half = buffer.getvalue(), len(buffer.getvalue()) // 2
    superfluous = data[:-2] + b"abc" * 9 + data[-2:]
    np.testing.assert_array_equal(images.decode(superfluous, strict=True), images.decode(data))
    ended = data[:half] + b"\xff\xd9"
    assert images.decode(ended).shape == (64, 64, 3)
    with pytest.raises(images.ImageError, match=r"is damaged \(.* premature end of data segment\)"):
        images.decode(ended, strict=True)


def test_bytes_after_the_end_of_an_image_do_no_harm(smooth: images.Image) -> None:
    for suffix in (".jpg", ".png"):
        data = encode(smooth, suffix)
        np.testing.assert_array_equal(images.decode(data + b"\0" * 40), images.decode(data))


@pytest.mark.parametrize(
    ("data", "message"), [(b"", "is empty"), (b"no image at all", "is not an image")]
)
def test_what_is_not_an_image_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(images.ImageError, match=message):
        images.decode(data)


def test_shrinking_does_not_alias() -> None:
    """Stripes of one pixel become even gray, not other stripes."""
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    for size in (100, 224, 256, 448):
        shrunk = images.resize(stripes, size, size).astype(float)
        assert abs(shrunk.mean() - 127.5) < 2
        if size <= 256:
            assert shrunk.std() < 30


def test_resize_fills_the_square_and_keeps_the_corners(smooth: images.Image) -> None:
    for size in (20, 60, 200):
        resized = images.resize(smooth, size, size)
        assert resized.shape == (size, size, 3)
        corners = resized[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
        expected = smooth[[0, 0, -1, -1], [0, -1, 0, -1]].astype(int)
        assert np.abs(corners - expected).max() < 12


@pytest.mark.parametrize(("size", "offset"), [(448, 32), (447, 32), (445, 34), (512, 0)])
def test_center_offset_rounds_as_torchvision_does(size: int, offset: int) -> None:
    canvas = images.Canvas.of(Data(resize=512, crop=size), 30, 40)
    assert canvas.offset(images.CENTER) == (offset, offset)


def torchvision_five_crop(image: np.ndarray, size: int) -> list[np.ndarray]:
    """`torchvision.transforms.functional.five_crop`, line by line."""
    image_height, image_width = image.shape[:2]
    crop_height = crop_width = size

    def crop(top: int, left: int) -> np.ndarray:
        return image[top : top + crop_height, left : left + crop_width]

    top_left = crop(0, 0)
    top_right = crop(0, image_width - crop_width)
    bottom_left = crop(image_height - crop_height, 0)
    bottom_right = crop(image_height - crop_height, image_width - crop_width)
    center = crop(
        int(round((image_height - crop_height) / 2.0)),  # noqa: RUF046  # as it stands there
        int(round((image_width - crop_width) / 2.0)),  # noqa: RUF046
    )
    return [top_left, top_right, bottom_left, bottom_right, center]


def png(pixels: images.Image) -> bytes:
    return cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes()


@pytest.mark.parametrize("size_and_crop", [(512, 448), (512, 447), (511, 448), (36, 31), (7, 7)])
@pytest.mark.parametrize("height", [515, 500, 39, 7])
def test_five_crops_are_those_of_torchvision_to_the_pixel(
    height: int, size_and_crop: tuple[int, int]
) -> None:
    size, crop = size_and_crop
    pixels = np.random.default_rng(0).integers(0, 256, (height, 120, 3), np.uint8)
    data = Data(resize=size, crop=crop, cut_bottom=3)
    crops = images.test_crops(png(pixels), data, 5, None)
    assert crops.shape == (5, crop, crop, 3)
    assert crops.dtype == np.uint8
    resized = images.resize(pixels[:-3], size, size)
    for ours, theirs in zip(crops, torchvision_five_crop(resized, crop), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    center = images.test_crops(png(pixels), data, 1, None)
    np.testing.assert_array_equal(center, crops[-1:])


def test_each_of_five_crops_shows_its_corner() -> None:
    pixels = np.zeros((20, 20, 3), np.uint8)
    for color, (row, column) in enumerate([(0, 0), (0, 19), (19, 0), (19, 19), (10, 10)], 1):
        pixels[row, column] = color
    crops = images.test_crops(png(pixels), Data(resize=20, crop=12), 5, None)
    corners = [(0, 0), (0, 11), (11, 0), (11, 11), (6, 6)]
    for number, (crop, (row, column)) in enumerate(zip(crops, corners, strict=True), 1):
        assert (crop[row, column] == number).all()
    for corner in range(4):
        assert set(np.unique(crops[corner])) == {0, corner + 1, 5}  # all of them see the middle
    assert set(np.unique(crops[4])) == {0, 5}

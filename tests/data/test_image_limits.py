"""Images of very many pixels, and decoding in threads and processes."""

import concurrent.futures
import io
import multiprocessing
import struct
import time
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import odd_images as write
import pytest
from decoded_shape import decoded_shape
from PIL import Image

from fgr_jax.config import Config, Data, validate
from fgr_jax.data import images
from fgr_jax.errors import UserError


def saved(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def huge_headers() -> dict[str, bytes]:
    """Small files that state 30,000 × 30,000 pixels."""
    side = 30_000
    rows = zlib.compress(bytes(1 + side // 8) * 100)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    small = Image.new("L", (8, 8))
    gif, webp = saved(small, "GIF"), saved(small, "WEBP", lossless=True)
    bits = int.from_bytes(webp[21:25], "little") >> 28 << 28 | (16383 - 1) << 14 | (16383 - 1)
    jpeg = saved(small, "JPEG", progressive=True)
    frame = jpeg.index(b"\xff\xc2") + 5
    components = b"".join(bytes([c, 0x11, 0]) for c in (1, 2, 3))
    scans = b"".join(write.segment(0xDA, bytes([1, c, 0, 0, 63, 0])) + b"\0" for c in (1, 2, 3))
    tall = [(256, 4, [side]), (257, 4, [side])]
    return {
        "png": write.PNG
        + write.chunk(b"IHDR", header)
        + write.chunk(b"IDAT", rows)
        + write.chunk(b"IEND", b""),
        "gif": gif[:6] + struct.pack("<HH", side, side) + gif[10:],
        "tiff": write.tiff(np.zeros((8, 8, 1), np.uint8), 8, 1, tags=tall),
        "tiff of 16 bits": write.tiff(np.zeros((8, 8, 2), np.uint16), 16, 1, tags=tall),
        "bmp": write.bmp([bytes(8)] * 8, side, 8, palette=bytes(1024), height=side),
        "webp": webp[:21] + bits.to_bytes(4, "little") + webp[25:],
        "jpeg of a scan for each component": jpeg[:2]
        + write.segment(0xC0, struct.pack(">BHHB", 8, side, side, 3) + components)
        + scans
        + b"\xff\xd9",
        "progressive jpeg": jpeg[:frame] + struct.pack(">HH", side, side) + jpeg[frame + 4 :],
    }


@pytest.mark.parametrize("name", huge_headers())
def test_too_many_pixels_are_refused_before_memory_is_allocated(name: str) -> None:
    data = huge_headers()[name]
    tracemalloc.start()
    started = time.perf_counter()
    for read in (images.check, images.decode):
        with pytest.raises(images.ImageError, match=r"has [\d,]+ (× [\d,]+ )?pixels, more than"):
            read(data)
    assert time.perf_counter() - started < 1
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("limit", "factor"), [(48_000, 1), (47_999, 2), (12_000, 2), (11_999, 4), (800, 8)]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpegs_of_too_many_pixels_are_decoded_smaller(mode: str, limit: int, factor: int) -> None:
    rows, columns = np.mgrid[0:200, 0:240]
    pixels = np.stack([rows, columns, (rows + columns) // 2], -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x112] = 6
    data = saved(Image.fromarray(pixels).convert(mode), "JPEG", quality=95, exif=exif)
    images.check(data, max_pixels=limit)
    whole, reduced = images.decode(data), images.decode(data, max_pixels=limit)
    assert reduced.shape == (240 // factor, 200 // factor, 3)
    expected = cv2.resize(whole, (200 // factor, 240 // factor), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - expected).mean() < 3
    cut = images.decode(data, cut_bottom=40, max_pixels=limit)
    np.testing.assert_array_equal(cut, reduced[: -(40 // factor)])


def test_jpegs_that_an_eighth_does_not_make_small_enough_are_refused() -> None:
    data = saved(Image.new("RGB", (240, 200)), "JPEG")
    for read in (images.check, images.decode):
        with pytest.raises(images.ImageError, match="has 240 × 200 pixels"):
            read(data, max_pixels=749)


@pytest.mark.long
def test_a_photograph_of_200_megapixels() -> None:
    photograph = np.tile(np.arange(256, dtype=np.uint8).repeat(4), (12240, 16))[:, :16320]
    data = cv2.imencode(".jpg", photograph)[1].tobytes()
    images.check(data)
    assert images.decode(data).shape == (6120, 8160, 3)


def test_the_limit_leaves_enough_pixels_for_the_network() -> None:
    config = Config(data=Data(name="cub", resize=512, max_pixels=4 * 512**2))
    validate(config)
    config.data.max_pixels -= 1
    with pytest.raises(
        UserError, match=r"--config.data.max_pixels=1048575: must be at least 1048576"
    ):
        validate(config)


def odd_files() -> list[bytes]:
    """Files about which libjpeg, libtiff, libpng or Pillow has something to print."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    jpeg, tiff = saved(image, "JPEG"), saved(image, "TIFF", compression="tiff_lzw")
    middle = len(tiff) // 2
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) % 16
    wide = write.tiff(np.zeros((8, 8, 2), np.uint16), 16, 1, deflated=True)
    palette = write.chunk(b"PLTE", bytes(range(48))) + write.chunk(b"tRNS", b"\0\1\2")
    return [
        jpeg[:-2] + b"abc" * 50 + jpeg[-2:],
        jpeg[: len(jpeg) // 2] + b"\0" * 200 + jpeg[len(jpeg) // 2 + 200 :],
        tiff[:middle] + b"\xff" * 100 + tiff[middle + 100 :],
        write.tiff(gray, 8, 1, tags=[(277, 3, [2048])]),
        wide[:-12] + b"\xff" * 12,
        write.png(gray, 8, 0, before=write.chunk(b"iCCP", b"x\0\0abc")),
        write.png(gray, 8, 3, before=palette),
        write.png(gray.astype(np.uint16), 16, 0, before=write.chunk(b"iCCP", b"x\0\0abc")),
    ]


def test_nothing_is_printed_in_threads_and_processes(capfd: pytest.CaptureFixture) -> None:
    files = odd_files() * 4
    alone = [decoded_shape(data) for data in files]
    assert sum(isinstance(result, str) for result in alone) == 12  # the three TIFFs
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert list(threads.map(decoded_shape, files)) == alone
    spawned = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawned) as processes:
        assert list(processes.map(decoded_shape, files)) == alone
    assert capfd.readouterr() == ("", "")

"""Generated image files of all formats, bit depths, orientations and transparency, whole and damaged.

Of each it holds: its pixels are those that Pillow decodes, within 3 levels, or `check` says what it is.
"""

import base64
import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import odd_images as write
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from fgr_jax.data import images

pillow_heif.register_heif_opener()

HEIGHT, WIDTH = 24, 37
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
COLORS = np.stack([ROWS * 10 % 256, COLUMNS * 6, 255 - ROWS - 2 * COLUMNS], -1).astype(np.uint8)
GRAY = ((ROWS * 7 + COLUMNS * 3) % 256).astype(np.uint8)[:, :, None]
ALPHA = (255 - 5 * ROWS - 3 * COLUMNS).clip(0).astype(np.uint8)[:, :, None]
PHOTO = Image.fromarray(COLORS)
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'

# JPEGs of 8×8 pixels, coded arithmetically, by cjpeg of libjpeg-turbo.
ARITHMETIC = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIx"
    "wcKDcpLDAxNDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIy"
    "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/yQARCAAIAAgDASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPw"
    "D+i0L/AGCta4GEY++97GpQOACnDyDpGID/2Q=="
)
ARITHMETIC_PROGRESSIVE = (
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIx"
    "wcKDcpLDAxNDQ0Hyc5PTgyPC4zNDL/2wBDAQkJCQwLDBgNDRgyIRwhMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIy"
    "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjL/ygARCAAIAAgDASIAAhEBAxEB/8wABgAQARD/2gAMAwEAAhADEAAAAf0o8P"
    "/MAAQQBf/aAAgBAQABBQIVneH/zAAEEQX/2gAIAQMBAT8BOYzu4K8qQP/MAAQRBf/aAAgBAgEBPwE6RAx+1v/MAAQQ"
    "Bf/aAAgBAQAGPwL/zAAEEAX/2gAIAQEAAT8hpjj/2gAMAwEAAgADAAAAEGD/zAAEEQX/2gAIAQMBAT8QroD/zAAEEQ"
    "X/2gAIAQIBAT8Qq8D/zAAEEAX/2gAIAQEAAT8QTED/2Q=="
)


# How each format is written.
JPEG_OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True, "quality": 97},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "restarts": {"restart_marker_blocks": 1},
}
TIFF_OPTIONS: dict[str, dict[str, Any]] = {
    "": {},
    "deflated": {"deflated": True},
    "planar": {"planar": True},
    "tiled": {"tile": 16},
    "tiled, deflated": {"tile": 16, "deflated": True},
    "strips": {"rows_per_strip": 5},
    "directory last": {"header_first": False},
}


class Corpus:
    """Files by their names, with the pixels that they must have or the message that refuses them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.pixels: dict[str, np.ndarray] = {}  # of those that Pillow does not decode, or not well
        self.refused: dict[str, str] = {}  # pattern of the message

    def add(
        self, name: str, data: bytes, *, pixels: np.ndarray | None = None, refused: str = ""
    ) -> None:
        assert name not in self.files, name
        self.files[name] = data
        if pixels is not None:
            self.pixels[name] = pixels
        if refused:
            self.refused[name] = refused


def saved(image: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def several() -> dict[str, Any]:
    """Returns the options of a file of two frames; Pillow notes some in the second one."""
    return {"save_all": True, "append_images": [PHOTO.rotate(180)]}


def scaled(samples: np.ndarray, bits: int) -> np.ndarray:
    """Returns 8-bit samples with other numbers of bits."""
    return (samples.astype(np.int64) * ((1 << bits) - 1) // 255).astype(
        np.uint16 if bits > 8 else np.uint8
    )


def repeated(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray, 3, axis=2)


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags


def add_jpegs(corpus: Corpus) -> None:
    for mode in ("L", "RGB", "CMYK"):
        for name, options in JPEG_OPTIONS.items():
            corpus.add(f"jpeg {mode} {name}", saved(PHOTO.convert(mode), "JPEG", **options))
    corpus.add("jpeg of RGB components", saved(PHOTO, "JPEG", keep_rgb=True))
    jpeg = saved(PHOTO, "JPEG")
    cmyk = saved(PHOTO.convert("CMYK"), "JPEG")
    adobe = cmyk.index(b"Adobe")
    corpus.add("jpeg YCCK", cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :])
    corpus.add("jpeg CMYK without Adobe's marker", cmyk[: adobe - 4] + cmyk[adobe + 12 :])
    corpus.add("jpeg arithmetic", base64.b64decode(ARITHMETIC))
    corpus.add("jpeg arithmetic progressive", base64.b64decode(ARITHMETIC_PROGRESSIVE))
    frame = jpeg.index(b"\xff\xc0")
    for marker, name in (
        (0xC3, "a lossless JPEG"),
        (0xC5, "a hierarchical JPEG"),
        (0xF7, "a JPEG-LS"),
    ):
        changed = jpeg[: frame + 1] + bytes([marker]) + jpeg[frame + 2 :]
        corpus.add(f"jpeg that is {name}", changed, refused=f"is {name}")
    for bits in (12, 16):
        changed = jpeg[: frame + 4] + bytes([bits]) + jpeg[frame + 5 :]
        corpus.add(f"jpeg of {bits} bits", changed, refused=f"is a JPEG of {bits} bits")
    corpus.add(
        "jpeg without height",
        jpeg[: frame + 5] + b"\0\0" + jpeg[frame + 7 :],
        refused=r"has 37×0 pixels",
    )
    corpus.add("jpeg cut before another", jpeg[:-40] + jpeg, refused="is truncated")
    # Each of these ends libjpeg's work.
    component = frame + 10 + 2 * 3 + 1  # the third's sampling factors
    progressive = saved(PHOTO, "JPEG", progressive=True)
    end_of_band = progressive.rindex(b"\xff\xda") + 4 + 1 + 2 + 1
    tables, quantization = jpeg.index(b"\xff\xc4"), jpeg.rindex(b"\xff\xdb")
    counts = list(jpeg[tables + 5 : tables + 21])  # of the codes of 1 to 16 bits
    counts[0], counts[2] = counts[0] + 3, counts[2] - 3
    for name, damaged in {
        "fractional sampling": jpeg[:component] + b"\x31" + jpeg[component + 1 :],
        "too many codes": jpeg[: tables + 5] + bytes(counts) + jpeg[tables + 21 :],
        "a missing table": jpeg[:quantization] + jpeg[quantization + 2 + 67 :],
        "a band too high": progressive[:end_of_band] + b"\x60" + progressive[end_of_band + 1 :],
    }.items():
        corpus.add(f"jpeg of {name}", damaged, refused="is truncated or damaged")
    two = jpeg[: frame + 2] + b"\0\x0e" + jpeg[frame + 4 : frame + 9] + b"\2"
    two += jpeg[frame + 10 : frame + 16] + jpeg[frame + 19 :]
    corpus.add("jpeg of two components", two, refused="is a JPEG of a kind that is not read")
    tall = jpeg[: frame + 5] + b"\xff\xff" + jpeg[frame + 7 :]
    corpus.add("jpeg of 65,535 rows", tall, refused="is .* JPEG")
    corpus.add("jpeg with a fill byte", jpeg[:frame] + b"\xff" + jpeg[frame:])
    corpus.add("jpeg with bytes between segments", jpeg[:frame] + b"abc" + jpeg[frame:])
    corpus.add("jpeg with bytes before the end", jpeg[:-2] + b"abc" * 20 + jpeg[-2:])
    for orientation in range(1, 9):
        corpus.add(f"jpeg exif {orientation}", saved(PHOTO, "JPEG", exif=exif(orientation)))
    corpus.add("jpeg xmp", saved(PHOTO, "JPEG", xmp=XMP.encode()))
    corpus.add("jpeg exif and xmp", saved(PHOTO, "JPEG", exif=exif(8), xmp=XMP.encode()))
    corpus.add("jpeg cmyk exif", saved(PHOTO.convert("CMYK"), "JPEG", exif=exif(5)))
    corpus.add(
        "jpeg with damaged exif",
        jpeg[:2] + b"\xff\xe1\0\x10Exif\0\0no TIFF." + jpeg[2:],
        pixels=np.asarray(Image.open(io.BytesIO(jpeg))),
    )
    corpus.add("jpeg several", saved(PHOTO, "MPO", **several()))


def add_pngs(corpus: Corpus) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    samples = {
        0: GRAY,
        2: COLORS,
        4: np.concatenate([GRAY, ALPHA], -1),
        6: np.concatenate([COLORS, ALPHA], -1),
    }
    for bits, color in [(1, 0), (2, 0), (4, 0), *((b, c) for b in (8, 16) for c in (0, 2, 4, 6))]:
        for interlaced in (False, True):
            data = write.png(scaled(samples[color], bits), bits, color, interlaced=interlaced)
            gray16 = repeated(GRAY) if (bits, color) == (16, 0) else None
            corpus.add(f"png {bits} {color} {interlaced}", data, pixels=gray16)
    for bits in (1, 2, 4, 8):
        for transparent in (False, True):
            before = write.chunk(b"PLTE", palette[: 1 << bits].tobytes())
            before += write.chunk(b"tRNS", bytes(range(1 << bits))) if transparent else b""
            indices = GRAY & ((1 << bits) - 1)
            corpus.add(
                f"png palette {bits} {transparent}",
                write.png(indices, bits, 3, before=before),
                pixels=palette[indices[:, :, 0]],
            )
    corpus.add("png tRNS gray", write.png(GRAY, 8, 0, before=write.chunk(b"tRNS", b"\0\5")))
    corpus.add(
        "png tRNS color", write.png(COLORS, 8, 2, before=write.chunk(b"tRNS", b"\0\5\0\6\0\7"))
    )
    for bits in (8, 10, 12):
        # Cameras store these in 16, without shifting them. The brightest uses all of them.
        wide = scaled(GRAY, bits).astype(np.uint16)
        corpus.add(f"png {bits} in 16 gray", write.png(wide, 16, 0), pixels=repeated(GRAY))
        wide = scaled(COLORS, bits).astype(np.uint16)
        corpus.add(f"png {bits} in 16 color", write.png(wide, 16, 2), pixels=COLORS)
        corpus.add(
            f"png {bits} in 16 color and alpha",
            write.png(np.concatenate([wide, ALPHA.astype(np.uint16) * 257], -1), 16, 6),
            pixels=COLORS,
        )
    corpus.add("png 16 black", write.png(np.zeros((4, 5, 1), np.uint16), 16, 0))
    corpus.add("png 16 color black", write.png(np.zeros((4, 5, 3), np.uint16), 16, 2))
    stated = exif(6).tobytes()
    for place in ("before", "after"):
        for name, body in {
            "eXIf": write.chunk(b"eXIf", stated.removeprefix(b"Exif\0\0")),
            "iTXt xmp": write.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.encode()),
            "zTXt exif": write.chunk(
                b"zTXt",
                b"Raw profile type exif\0\0"
                + zlib.compress(f"\nexif\n{len(stated):8}\n{stated.hex()}\n".encode()),
            ),
        }.items():
            before, after = (body, b"") if place == "before" else (b"", body)
            corpus.add(f"png {name} {place}", write.png(COLORS, 8, 2, before=before, after=after))
    for orientation in range(1, 9):
        corpus.add(f"png exif {orientation}", saved(PHOTO, "PNG", exif=exif(orientation)))
    corpus.add("png animated", saved(PHOTO, "PNG", **several()))
    corpus.add(
        "png animated, another first",
        saved(PHOTO, "PNG", **several(), default_image=True),
    )
    corpus.add(
        "png with a bad ancillary checksum",
        write.png(COLORS, 8, 2, before=write.chunk(b"tEXt", b"a\0b")[:-1] + b"?"),
        pixels=COLORS,
    )
    png = write.png(COLORS, 8, 2)
    corpus.add(
        "png of color type 1", write.png(COLORS, 8, 1), refused="is a PNG with an invalid header"
    )
    corpus.add(
        "png of 3 bits", write.png(GRAY % 8, 3, 0), refused="is a PNG with an invalid header"
    )
    corpus.add(
        "png with a damaged byte",
        png[:60] + bytes([png[60] ^ 1]) + png[61:],
        refused="is a damaged PNG",
    )
    corpus.add("png without height", write.png(GRAY[:0], 8, 0), refused="has 37×0 pixels")
    corpus.add("png without pixels", png[:33] + png[-12:], refused="is a PNG without pixels")
    corpus.add("png copied as text", png.replace(b"\r\n", b"\n"), refused="is a PNG copied as text")
    add_damaged_pngs(corpus)


def png_of(rows: bytes, *, color: int = 2, before: bytes = b"", compressed: bool = True) -> bytes:
    """Writes a PNG of 37×24 pixels of 8 bits; all checksums are right, whatever its rows are."""
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, color, 0, 0, 0)
    pixels = zlib.compress(rows) if compressed else rows
    parts = ((b"IHDR", header), (b"", before), (b"IDAT", pixels), (b"IEND", b""))
    return write.PNG + b"".join(write.chunk(name, body) if name else body for name, body in parts)


# Chunks of which libpng would print a warning.
ODD_CHUNKS = {
    "short gAMA": write.chunk(b"gAMA", b"\0\xb1\x8f"),
    "gAMA of 0": write.chunk(b"gAMA", bytes(4)),
    "great gAMA": write.chunk(b"gAMA", b"\xff" * 4),
    "two gAMA": 2 * write.chunk(b"gAMA", b"\0\0\xb1\x8f"),
    "long bKGD": write.chunk(b"bKGD", bytes(7)),
    "short bKGD": write.chunk(b"bKGD", bytes(2)),
    "bright bKGD": write.chunk(b"bKGD", b"\1\0\1\0\1\0"),
    "long pHYs": write.chunk(b"pHYs", bytes(10)),
    "two pHYs": 2 * write.chunk(b"pHYs", bytes(9)),
    "short tIME": write.chunk(b"tIME", b"\x07\xe8\1\1\0\0"),
    "tIME of month 13": write.chunk(b"tIME", b"\x07\xe8\x0d\1\0\0\0"),
    "tEXt without text": write.chunk(b"tEXt", b"abc"),
    "empty tEXt": write.chunk(b"tEXt", b""),
    "PLTE of 4 bytes": write.chunk(b"PLTE", bytes(4)),
    "two PLTE": 2 * write.chunk(b"PLTE", bytes(6)),
}


def add_damaged_pngs(corpus: Corpus) -> None:
    """Adds PNGs whose checksums are right."""
    rows = b"".join(b"\0" + row.tobytes() for row in COLORS)
    stride = len(rows) // HEIGHT
    deflated = zlib.compress(rows)
    header = write.chunk(b"IHDR", struct.pack(">IIBBBBB", 2 * WIDTH, HEIGHT, 8, 2, 0, 0, 0))
    whole = png_of(rows)
    parts = write.chunk(b"IDAT", deflated[:50]) + write.chunk(b"tEXt", b"a\0b")
    parts += write.chunk(b"IDAT", deflated[50:])
    for name, data, message in (
        ("half of the rows", png_of(rows[: len(rows) // 2]), "is truncated"),
        ("half of its data", png_of(deflated[:200], compressed=False), "is truncated"),
        ("data without an end", png_of(deflated[:-4], compressed=False), "is truncated"),
        ("no data", png_of(b"", compressed=False), "is truncated"),
        (
            "a damaged byte",
            png_of(
                deflated[:150] + bytes([deflated[150] ^ 255]) + deflated[151:], compressed=False
            ),
            "is a damaged PNG|is truncated",
        ),
        ("one row too many", png_of(rows + rows[-stride:]), "is a damaged PNG: .* 24 rows"),
        ("one byte too many", png_of(rows + b"\0"), "is a damaged PNG: .* 24 rows"),
        ("two headers", png_of(rows, before=header), "is a damaged PNG: it has two headers"),
        ("interrupted data", whole[:33] + parts + whole[-12:], "is a damaged PNG: other data"),
        *((f"{name} before", png_of(rows, before=odd), "") for name, odd in ODD_CHUNKS.items()),
        *(
            (
                f"{name} after",
                whole[:-12] + odd + whole[-12:],
                "",
            )
            for name, odd in ODD_CHUNKS.items()
        ),
        *(
            (
                f"an unknown filter in row {row}",
                png_of(rows[: row * stride] + b"\5" + rows[row * stride + 1 :]),
                "is a damaged PNG: a row is coded",
            )
            for row in (0, 1, HEIGHT - 1)
        ),
    ):
        corpus.add(f"png of {name}", data, refused=message, pixels=COLORS)
    corpus.add(
        "png without a palette", write.png(GRAY, 8, 3), refused="is a PNG without its palette"
    )
    for bits in (2, 4, 8):
        few = write.chunk(b"PLTE", bytes(range(9)))
        for interlaced in (False, True):
            corpus.add(
                f"png of a color beyond the palette {bits} {interlaced}",
                write.png(np.full_like(GRAY, 3), bits, 3, before=few, interlaced=interlaced),
                refused="is a damaged PNG: it uses color 3 of a palette of 3",
            )


def add_tiffs(corpus: Corpus) -> None:
    for order in "<>":
        for bits in (1, 2, 4, 8, 16):
            for white in (0, 1):
                shades = scaled(GRAY, bits)
                truth = shades >> 8 if bits == 16 else shades.astype(int) * 255 // ((1 << bits) - 1)
                truth = repeated(truth if white else 255 - truth).astype(np.uint8)
                corpus.add(
                    f"tiff gray {bits} {white} {order}",
                    write.tiff(shades, bits, white, order=order),
                    pixels=truth,
                )
        for name, options in TIFF_OPTIONS.items():
            for bits in (8, 16):
                refused = (
                    "is a TIFF of .* in separate planes" if (bits, name) == (16, "planar") else ""
                )
                data = write.tiff(scaled(COLORS, bits), bits, 2, order=order, **options)
                corpus.add(
                    f"tiff color {bits} {name} {order}", data, pixels=COLORS, refused=refused
                )
        for tags, name in (([(273, 4, [2408])], "one strip"), ([(278, 4, [8])], "three strips")):
            corpus.add(
                f"tiff planar of {name} {order}",
                write.tiff(COLORS, 8, 2, order=order, planar=True, tags=tags),
                refused="is a damaged TIFF: it has . blocks of samples, too few for 3 planes",
            )
        for extra in (0, 1, 2):
            tags = [(338, 3, [extra])]
            both = np.concatenate([COLORS, ALPHA | 1], -1)
            corpus.add(
                f"tiff alpha {extra} {order}", write.tiff(both, 8, 2, order=order, tags=tags)
            )
            corpus.add(
                f"tiff alpha 16 {extra} {order}",
                write.tiff(scaled(both, 16), 16, 2, order=order, tags=tags),
            )
            if extra != 1:
                both = np.concatenate([GRAY, ALPHA], -1)
                corpus.add(
                    f"tiff gray alpha {extra} {order}",
                    write.tiff(both, 8, 1, order=order, tags=tags),
                    pixels=repeated(GRAY),
                )
                corpus.add(
                    f"tiff gray alpha 16 {extra} {order}",
                    write.tiff(scaled(both, 16), 16, 1, order=order, tags=tags),
                    pixels=repeated(GRAY),
                )
        both = np.concatenate([GRAY, np.full_like(GRAY, 255)], -1)
        corpus.add(
            f"tiff gray alpha 1 {order}",
            write.tiff(both, 8, 1, order=order, tags=[(338, 3, [1])]),
            pixels=repeated(GRAY),
        )
        inks = np.concatenate([COLORS, ALPHA], -1)
        corpus.add(f"tiff cmyk {order}", write.tiff(inks, 8, 5, order=order))
        corpus.add(f"tiff cmyk 16 {order}", write.tiff(scaled(inks, 16), 16, 5, order=order))
        corpus.add(f"tiff lab {order}", write.tiff(COLORS, 8, 8, order=order))
        corpus.add(
            f"tiff ycbcr {order}", write.tiff(COLORS, 8, 6, order=order, tags=[(530, 3, [1, 1])])
        )
        for white in (0, 1):
            wide = scaled(np.concatenate([GRAY, GRAY], -1), 12)
            corpus.add(
                f"tiff gray alpha 12 in 16 {white} {order}",
                write.tiff(wide, 16, white, order=order, tags=[(338, 3, [2])]),
                refused="uses at most 12 of its 16 bits: convert it to PNG",
            )
        corpus.add(
            f"tiff cmyk 12 in 16 {order}",
            write.tiff(scaled(inks, 12), 16, 5, order=order),
            refused="uses at most 12 of its 16 bits: convert it to PNG",
        )
        corpus.add(
            f"tiff palette in 8 bits {order}",
            write.tiff(GRAY, 8, 3, order=order, tags=[(320, 3, [*range(256)] * 3)]),
            pixels=repeated(GRAY),
        )
        colors = [int(each) * 257 for each in np.random.default_rng(0).integers(0, 256, 48)]
        corpus.add(
            f"tiff palette {order}",
            write.tiff(GRAY % 16, 4, 3, order=order, tags=[(320, 3, colors)]),
        )
        for bits in (8, 10, 12):
            corpus.add(
                f"tiff {bits} in 16 {order}",
                write.tiff(scaled(GRAY, bits).astype(np.uint16), 16, 1, order=order),
                pixels=repeated(GRAY),
            )
            for orientation in (1, 6):
                turned = np.rot90(COLORS, -1) if orientation == 6 else COLORS
                corpus.add(
                    f"tiff {bits} in 16 color {orientation} {order}",
                    write.tiff(
                        scaled(COLORS, bits).astype(np.uint16),
                        16,
                        2,
                        order=order,
                        tags=[(274, 3, [orientation])],
                    ),
                    pixels=turned,
                )
        for orientation in range(1, 9):
            for deflated in (False, True):
                corpus.add(
                    f"tiff orientation {orientation} {deflated} {order}",
                    write.tiff(
                        COLORS, 8, 2, order=order, deflated=deflated, tags=[(274, 3, [orientation])]
                    ),
                )
        corpus.add(
            f"tiff xmp {order}",
            write.tiff(COLORS, 8, 2, order=order, tags=[(700, 1, list(XMP.encode()))]),
        )
        for name, dtype, bits, kind in (
            ("float", np.float32, 32, 3),
            ("double", np.float64, 64, 3),
            ("half", np.float16, 16, 3),
            ("signed 8", np.int8, 8, 2),
            ("signed 16", np.int16, 16, 2),
            ("signed 32", np.int32, 32, 2),
            ("unsigned 32", np.uint32, 32, 1),
        ):
            for channels, shades in ((1, GRAY), (3, COLORS)):
                data = write.tiff(
                    shades.astype(dtype), bits, min(channels, 2), order=order, sample_format=kind
                )
                corpus.add(
                    f"tiff {name} {channels} {order}",
                    data,
                    refused="is a TIFF of .*: convert it to (an 8-bit )?PNG",
                )
    corpus.add("tiff 12", write.tiff(scaled(GRAY // 8, 12), 12, 1), pixels=repeated(GRAY // 8))
    corpus.add(
        "tiff 12 big-endian",
        write.tiff(scaled(GRAY, 12), 12, 1, order=">"),
        refused="is a TIFF of 1 × 12-bit samples",
    )
    for photometric in (0, 1):
        corpus.add(
            f"tiff gray alpha 16 in tiles {photometric}",
            write.tiff(scaled(both, 16), 16, photometric, tile=16, tags=[(338, 3, [2])]),
            refused="is a TIFF of 2 × 16-bit samples in compression 1 that is not read",
        )
    corpus.add(
        "tiff color 16 in reversed order",
        write.tiff(scaled(COLORS, 16), 16, 2, tags=[(266, 3, [2])]),
        refused="is a TIFF of 16 bits in reversed order: convert it to PNG",
    )
    corpus.add("bigtiff", write.tiff(COLORS, 8, 2, big=True), pixels=COLORS)
    corpus.add(
        "bigtiff big-endian",
        write.tiff(COLORS, 8, 2, big=True, order=">"),
        refused="is a big-endian BigTIFF",
    )
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd"):
        for mode in ("L", "RGB", "CMYK", "P", "LA", "RGBA"):
            if not (compression == "jpeg" and mode == "P"):
                corpus.add(
                    f"tiff {compression} {mode}",
                    saved(PHOTO.convert(mode), "TIFF", compression=compression),
                )
    for compression in ("group3", "group4"):
        corpus.add(
            f"tiff {compression}", saved(PHOTO.convert("1"), "TIFF", compression=compression)
        )
    corpus.add("tiff of two pages", saved(PHOTO, "TIFF", **several()))
    corpus.add(
        "tiff compressed by JPEG 2000",
        write.tiff(COLORS, 8, 2, tags=[(259, 3, [34712])]),
        refused="is a TIFF of 3 × 8-bit samples in compression 34712",
    )
    corpus.add("tiff without height", write.tiff(COLORS, 8, 2, tags=[(257, 4, [0])]), refused="is")
    corpus.add(
        "tiff of a camera",
        write.tiff(COLORS, 8, 2, tags=[(50706, 1, [1, 4, 0, 0])]),
        refused="is a raw image of a camera",
    )


def add_others(corpus: Corpus) -> None:
    transparent = Image.fromarray(np.concatenate([COLORS, ALPHA], -1))
    webp_options = {"": {}, "lossless": {"lossless": True}, "animated": several()}
    for name, image in {"": PHOTO, "gray ": PHOTO.convert("L"), "alpha ": transparent}.items():
        for kind, options in webp_options.items():
            corpus.add(f"webp {name}{kind}", saved(image, "WEBP", **options))
    for orientation in range(1, 9):
        webp = saved(PHOTO, "WEBP", lossless=True, exif=exif(orientation))
        corpus.add(f"webp exif {orientation}", webp)
        corpus.add(f"webp exif {orientation}, old", with_old_prefix(webp))
        corpus.add(f"avif exif {orientation}", saved(PHOTO, "AVIF", exif=exif(orientation)))
        corpus.add(
            f"heic exif {orientation}", saved(PHOTO, "HEIF", exif=exif(orientation).tobytes())
        )
    corpus.add("webp xmp", saved(PHOTO, "WEBP", xmp=XMP.encode()))
    corpus.add("avif alpha", saved(transparent, "AVIF"))
    corpus.add("avif animated", saved(PHOTO, "AVIF", **several()))
    corpus.add("heic alpha", saved(transparent, "HEIF"))
    corpus.add("heic gray", saved(PHOTO.convert("L"), "HEIF"))
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        image = transparent if mode == "RGBA" else PHOTO.convert(mode)
        corpus.add(f"gif {mode}", saved(image, "GIF"))
        corpus.add(f"bmp {mode}", saved(image, "BMP"))
    corpus.add("gif interlaced", saved(PHOTO, "GIF", interlace=1))
    corpus.add("gif transparent", saved(PHOTO.quantize(16), "GIF", transparency=3))
    corpus.add("gif animated", saved(PHOTO, "GIF", **several()))
    add_bmps(corpus)


def xmp_packets() -> dict[str, bytes]:
    """Returns ways of stating orientation 6 in XMP, all of them valid XML."""
    usual = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
        'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'
    )
    usual += "  \n" * 20 + '<?xpacket end="w"?>'
    element = usual.replace(
        ' tiff:Orientation="6"/>', ">\n<tiff:Orientation>6</tiff:Orientation></rdf:Description>"
    )
    ways = {
        "attribute": usual,
        "element": element,
        "single quotes": usual.replace('tiff:Orientation="6"', "tiff:Orientation='6'"),
        "spaces": usual.replace('tiff:Orientation="6"', 'tiff:Orientation\n = "6"'),
        "white space": element.replace(">6<", ">\n 6 <"),
        "a comment": element.replace(">6<", "><!-- upright -->6<"),
        "a character reference": usual.replace('"6"', '"&#54;"'),
        "another prefix": usual.replace("tiff:", "t:").replace("xmlns:tiff", "xmlns:t"),
        "default namespace": element.replace("tiff:Or", "Or").replace("xmlns:tiff", "xmlns"),
        "NULs at the end": usual + "\0\0",
    }
    packets = {name: packet.encode() for name, packet in ways.items()}
    return packets | {"UTF-16": usual.replace("\ufeff", "").encode("utf-16")}


def add_orientations(corpus: Corpus) -> None:
    turned = np.rot90(COLORS, -1)
    for name, packet in xmp_packets().items():
        add_with_xmp(corpus, f"xmp with {name}", packet)
    usual = xmp_packets()["attribute"]
    other = usual.replace(b"http://ns.adobe.com/tiff", b"http://example.com/tiff")
    bomb = b'<!DOCTYPE a [<!ENTITY a "aaaaaaaa">%s]>' % b"".join(
        b'<!ENTITY %c "%s">' % (97 + n, b"&%c;" % (96 + n) * 10) for n in range(1, 25)
    )
    bomb += usual.replace(b"</rdf:RDF>", b"<a>&y;</a></rdf:RDF>")
    for name, packet in (
        ("of another namespace", other),
        ("of orientation 9", usual.replace(b'"6"', b'"9"')),
        ("with entities", bomb),
        ("cut before it", usual[: usual.index(b"tiff:Or")]),
        ("of 100,000 levels", b"<a>" * 100_000),
    ):
        # Pillow would read the first ones.
        corpus.add(
            f"png xmp {name}",
            png_of(
                b"".join(b"\0" + row.tobytes() for row in COLORS),
                before=write.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet),
            ),
            pixels=COLORS,
        )

    def stated(kind: int, value: int) -> bytes:
        field = struct.pack("<I", value)
        return b"II*\0\x08\0\0\0\1\0\x12\1" + struct.pack("<HI", kind, 1) + field + bytes(4)

    jpeg = saved(PHOTO, "JPEG", subsampling=0, quality=95)
    upright = np.asarray(Image.open(io.BytesIO(jpeg)))
    stating = jpeg_segment(b"http://ns.adobe.com/xap/1.0/\0" + usual)
    for name, segments, turns in (
        ("exif of orientation 0 and xmp", jpeg_segment(b"Exif\0\0" + stated(3, 0)) + stating, True),
        (
            "exif of orientation 1 and xmp",
            jpeg_segment(b"Exif\0\0" + stated(3, 1)) + stating,
            False,
        ),
        ("exif that begins with 0 and 255", jpeg_segment(b"Exif\0\xff" + stated(3, 6)), True),
        ("exif of type byte", jpeg_segment(b"Exif\0\0" + stated(1, 6)), True),
        ("exif of type long", jpeg_segment(b"Exif\0\0" + stated(4, 6)), True),
    ):
        corpus.add(
            f"jpeg {name}",
            jpeg[:2] + segments + jpeg[2:],
            pixels=np.rot90(upright, -1) if turns else upright,
        )
    rows = b"".join(b"\0" + row.tobytes() for row in COLORS)
    packet = write.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + usual)
    text = (b"Exif\0\0" + stated(3, 6)).hex().encode()
    profile = zlib.compress(b"\nAPP1\n%8d\n%s\n" % (len(text) // 2, text))
    of_app1 = write.chunk(b"zTXt", b"Raw profile type APP1\0\0" + profile)
    plain = b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(text) // 2, text)
    bare = stated(3, 6).hex().encode()  # without Exif\0\0
    without = b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(bare) // 2, bare)
    deflated = write.chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(usual))
    too_long = write.chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(80_000_000)))
    for name, before in (
        ("eXIf of orientation 0 and xmp", write.chunk(b"eXIf", stated(3, 0)) + packet),
        ("eXIf of type byte", write.chunk(b"eXIf", stated(1, 6))),
        ("zTXt APP1", of_app1),
        ("tEXt exif", write.chunk(b"tEXt", plain)),
        ("tEXt exif without its prefix", write.chunk(b"tEXt", without)),
        ("zTXt APP1 and a text that is too long", too_long + of_app1),
        ("deflated xmp and a text that is too long", too_long + deflated),
        ("xmp and a text that is too long", packet + too_long),
    ):
        corpus.add(f"png {name}", png_of(rows, before=before), pixels=turned)


def jpeg_segment(body: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def add_with_xmp(corpus: Corpus, name: str, packet: bytes) -> None:
    """Adds files of all formats whose orientation, 6, is in `packet`."""
    tags = [(700, 1, list(packet))]
    both = np.concatenate([GRAY, np.full_like(GRAY, 255)], -1)
    files = {
        "jpeg": (saved(PHOTO, "JPEG"), saved(PHOTO, "JPEG", xmp=packet)),
        "progressive jpeg": (
            saved(PHOTO, "JPEG", progressive=True),
            saved(PHOTO, "JPEG", progressive=True, xmp=packet),
        ),
        "webp": (saved(PHOTO, "WEBP"), saved(PHOTO, "WEBP", xmp=packet)),
        "avif": (saved(PHOTO, "AVIF"), saved(PHOTO, "AVIF", xmp=packet)),
        "tiff": (
            write.tiff(COLORS, 8, 2),
            write.tiff(COLORS, 8, 2, tags=tags),
        ),
        "tiff gray alpha 16": (
            write.tiff(scaled(GRAY, 16), 16, 1),
            write.tiff(scaled(both, 16), 16, 1, tags=[(338, 3, [2]), *tags]),
        ),
    }
    if name != "xmp with UTF-16":  # the text of a PNG is UTF-8
        rows = b"".join(b"\0" + row.tobytes() for row in COLORS)
        chunk = write.chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
        files["png"] = (png_of(rows), png_of(rows, before=chunk))
    for format, (plain, stating) in files.items():  # noqa: A001
        upright = images.decode(plain)
        corpus.add(f"{format} {name}", stating, pixels=np.rot90(upright, -1))


def with_old_prefix(webp: bytes) -> bytes:
    """Returns a WebP with EXIF as Pillow wrote it before 9.3."""
    at = webp.index(b"EXIF")
    size = int.from_bytes(webp[at + 4 : at + 8], "little")
    body = b"Exif\0\0" + webp[at + 8 : at + 8 + size].removeprefix(b"Exif\0\0")
    body = b"EXIF" + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2)
    whole = webp[8:at] + body
    return b"RIFF" + len(whole).to_bytes(4, "little") + whole


def add_bmps(corpus: Corpus) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
    indices = GRAY[::-1, :, 0]
    runs = [b"".join(bytes([1, each]) for each in row) + b"\0\0" for row in indices]
    runs[-1] = runs[-1][:-2] + b"\0\1"
    corpus.add("bmp rle8", write.bmp(runs, WIDTH, 8, compression=1, palette=palette.tobytes()))
    runs = [b"".join(bytes([1, each % 16 << 4]) for each in row) + b"\0\0" for row in indices]
    runs[-1] = runs[-1][:-2] + b"\0\1"
    corpus.add("bmp rle4", write.bmp(runs, WIDTH, 4, compression=2, palette=palette[:16].tobytes()))
    rows = [each.tobytes() for each in indices]
    corpus.add("bmp 8", write.bmp(rows, WIDTH, 8, palette=palette.tobytes()))
    corpus.add("bmp top down", write.bmp(rows, WIDTH, 8, palette=palette.tobytes(), top_down=True))
    for bits in (1, 4):
        rows = write.packed(indices & ((1 << bits) - 1), bits)
        corpus.add(
            f"bmp of {bits} bits",
            write.bmp(rows, WIDTH, bits, palette=palette[: 1 << bits].tobytes()),
        )
    red, green, blue = (COLORS[::-1, :, channel].astype(np.uint32) for channel in range(3))

    def masked(bits: int, *shifts: tuple[int, int]) -> list[bytes]:
        value = sum(
            (each >> (8 - keep)) << at
            for each, (keep, at) in zip((red, green, blue), shifts, strict=True)
        )
        return [row.tobytes() for row in np.asarray(value).astype(f"<u{bits // 8}")]

    def masks(*values: int) -> bytes:
        return struct.pack(f"<{len(values)}I", *values)

    corpus.add("bmp 555", write.bmp(masked(16, (5, 10), (5, 5), (5, 0)), WIDTH, 16))
    corpus.add(
        "bmp 565",
        write.bmp(
            masked(16, (5, 11), (6, 5), (5, 0)),
            WIDTH,
            16,
            compression=3,
            masks=masks(0xF800, 0x7E0, 0x1F),
        ),
    )
    plain = masked(32, (8, 16), (8, 8), (8, 0))
    corpus.add("bmp 32", write.bmp(plain, WIDTH, 32))
    for size in (40, 108, 124):
        corpus.add(
            f"bmp 32 masks {size}",
            write.bmp(
                plain,
                WIDTH,
                32,
                compression=3,
                header_size=size,
                masks=masks(0xFF0000, 0xFF00, 0xFF, 0),
            ),
        )
    corpus.add(
        "bmp 32 high masks",
        write.bmp(
            masked(32, (8, 24), (8, 16), (8, 8)),
            WIDTH,
            32,
            compression=3,
            masks=masks(0xFF000000, 0xFF0000, 0xFF00),
        ),
    )
    corpus.add(
        "bmp 32 odd masks",
        write.bmp(plain, WIDTH, 32, compression=3, masks=masks(0x3FF00000, 0xFFC00, 0x3FF)),
        refused="is a BMP of a kind that is not read",
    )
    corpus.add(
        "bmp of OS/2",
        write.bmp([row[:, ::-1].tobytes() for row in COLORS[::-1]], WIDTH, 24, header_size=12),
    )


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    made = Corpus()
    for add in (add_jpegs, add_pngs, add_tiffs, add_others, add_orientations):
        add(made)
    return made


@pytest.fixture(autouse=True)
def nothing_is_printed(capfd: pytest.CaptureFixture) -> Iterator[None]:
    """Libraries write no lines of their own to the standard error of the process."""
    yield
    assert capfd.readouterr() == ("", "")


def with_pillow(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception:
        return None


def decoded(data: bytes) -> np.ndarray | str:
    """Returns the pixels, or the message with which `check` refuses the file."""
    try:
        images.check(data)
    except images.ImageError as error:
        refused = str(error)
    else:
        return images.decode(data)
    with pytest.raises(images.ImageError, match=re.escape(refused)):
        images.decode(data)
    return refused


def difference(pixels: np.ndarray, expected: np.ndarray | None) -> float:
    if expected is None or pixels.shape != expected.shape:
        return np.inf
    return float(np.abs(pixels.astype(int) - expected).max())


def test_every_file_has_the_right_pixels_or_is_refused_by_name(corpus: Corpus) -> None:
    wrong = {}
    for name, data in corpus.files.items():
        result = decoded(data)
        if name in corpus.refused:
            if not (isinstance(result, str) and re.match(corpus.refused[name], result)):
                wrong[name] = result if isinstance(result, str) else "is decoded"
        elif isinstance(result, str):
            wrong[name] = result
        else:
            expected = corpus.pixels.get(name)
            gap = difference(result, with_pillow(data) if expected is None else expected)
            if gap > 3 or not result.flags.c_contiguous or result.dtype != np.uint8:
                wrong[name] = f"differs by {gap}"
            if not np.array_equal(images.decode(data, checked=True), result):
                wrong[name] = "is decoded otherwise if it has been checked before"
    assert not wrong


def test_every_file_cut_at_every_tenth_is_refused_or_whole(corpus: Corpus) -> None:
    wrong = {}
    for name, data in corpus.files.items():
        if name in corpus.refused:
            continue
        whole = images.decode(data)
        for tenth in range(1, 10):
            result = decoded(data[: len(data) * tenth // 10])
            if isinstance(result, str):
                if not re.match("is truncated|is not an image", result):
                    wrong[f"{name} {tenth}"] = result
            elif difference(result, whole) > 0:
                wrong[f"{name} {tenth}"] = "is decoded to other pixels"
    assert not wrong


@pytest.mark.parametrize("tail", [b"\0", b"x" * 2048, b"\0" * 4096, b"\xff\xd9", b"hello world"])
def test_bytes_after_the_end_of_a_file_do_no_harm(corpus: Corpus, tail: bytes) -> None:
    wrong = {}
    for name, data in corpus.files.items():
        if name not in corpus.refused:
            result = decoded(data + tail)
            gap = result if isinstance(result, str) else difference(result, images.decode(data))
            if gap:
                wrong[name] = gap
    assert not wrong


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_what_is_damaged_anywhere_is_refused_or_decoded(
    corpus: Corpus, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(corpus.files)))
    file = bytearray(corpus.files[name])
    for _ in range(data.draw(st.integers(0, 4))):
        # Most faults show in the first bytes.
        last = data.draw(st.sampled_from([min(len(file), 200), len(file)])) - 1
        file[data.draw(st.integers(0, last))] = data.draw(st.integers(0, 255))
    start = data.draw(st.sampled_from([0, 0, 0, data.draw(st.integers(0, len(file)))]))
    end = data.draw(
        st.sampled_from([len(file), len(file), data.draw(st.integers(start, len(file)))])
    )
    other = corpus.files[data.draw(st.sampled_from(["jpeg RGB ", "png 8 2 False", "gif P"]))]
    joined = bytes(file[start:end]) + data.draw(st.sampled_from([b"", b"", b"\0" * 9, other]))
    decoded(joined)

"""What files are, from their first bytes."""

import base64
import gzip
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from typing import Any

import numpy as np
import odd_images as write
import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fgr_jax.data import images

pillow_heif.register_heif_opener()
PIXELS = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)


def saved(format: str, **options: Any) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, format, **options)
    return buffer.getvalue()


def archived(kind: Any) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            file.writestr("a.jpg", "a")
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as file:
            file.addfile(tarfile.TarInfo("a.jpg"))
    return buffer.getvalue()


def box(brand: bytes, *others: bytes) -> bytes:
    """The first box of an ISO base media file."""
    body = b"ftyp" + brand + b"\0\0\0\0" + b"".join(others)
    return (len(body) + 4).to_bytes(4, "big") + body + b"\0\0\0\x08free"


READ = {
    "a JPEG": saved("JPEG"),
    "a PNG": saved("PNG"),
    "a WebP": saved("WEBP"),
    "a GIF": saved("GIF"),
    "a BMP": saved("BMP"),
    "a TIFF": saved("TIFF"),
    "an AVIF image": saved("AVIF"),
    "a HEIC image": saved("HEIF"),
}
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>'
RAW_TAGS = [(330, 4, [8]), (254, 4, [1])]

# Files that are not read, with what the message must say: what it is, and the way out.
REFUSED = {
    "empty": (b"", "is empty", ""),
    "zeros": (bytes(5000), "is not an image but nothing but zeros", "copy"),
    "JPEG XL": (b"\xff\x0a\xfa\x1f\x01", "is a JPEG XL image", "convert"),
    "JPEG XL in boxes": (
        b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x14ftypjxl ",
        "is a JPEG XL image",
        "convert",
    ),
    "JPEG 2000": (saved("JPEG2000"), "is a JPEG 2000 image", "convert"),
    "JPEG 2000 codestream": (saved("JPEG2000", no_jp2=True), "is a JPEG 2000 image", "convert"),
    "SVG": (SVG, "is an SVG drawing", "convert"),
    "SVG with a declaration": (
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- a -->\n<!DOCTYPE svg PUBLIC 'x'>\n" + SVG,
        "is an SVG drawing",
        "convert",
    ),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "is not an image but a PDF document", "export"),
    "HTML": (b"\n<!DOCTYPE HTML><html>404", "is not an image but an HTML page", "download"),
    "HTML with attributes": (b'<html lang="en">', "is not an image but an HTML page", "download"),
    "XML": (
        b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "is not an image but an XML document",
        "download",
    ),
    "JSON": (
        json.dumps({"error": 404}).encode(),
        "is not an image but a JSON document",
        "download",
    ),
    "JSON list": (b'[ {"a": 1}]', "is not an image but a JSON document", "download"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "is not an image but a Git LFS pointer",
        "git lfs pull",
    ),
    "git-annex": (
        b"/annex/objects/SHA256E-s1--e3b0.jpg\n",
        "is not an image but a git-annex pointer",
        "git annex get",
    ),
    "zip": (archived("zip"), "is not an image but a zip archive", "unpack"),
    "tar": (archived("w:"), "is not an image but a tar archive", "unpack"),
    "gzip": (gzip.compress(b"a"), "is not an image but a gzip archive", "unpack"),
    "tar.xz": (archived("w:xz"), "is not an image but an xz archive", "unpack"),
    "tar.bz2": (archived("w:bz2"), "is not an image but a bzip2 archive", "unpack"),
    "sequence": (box(b"isom", b"iso8", b"mp41"), "is not an image but a video", "frames"),
    "mp4": (box(b"isom", b"isom", b"avc1"), "is not an image but a video", "frames"),
    "mov": (box(b"qt  "), "is not an image but a video", "frames"),
    "webm": (b"\x1aE\xdf\xa3\x9fB\x86", "is not an image but a video", "frames"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "is not an image but a video", "frames"),
    "CR2": (b"II*\0\x10\0\0\0CR\2\0", "is a raw image of a camera", "develop"),
    "CR3": (box(b"crx ", b"isom"), "is a raw image of a camera", "develop"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "is a raw image of a camera", "develop"),
    "DNG": (
        write.tiff(PIXELS, 8, 2, tags=[(50706, 1, [1, 4, 0, 0])]),
        "is a raw image of a camera",
        "develop",
    ),
    "NEF": (
        write.tiff(PIXELS, 8, 2, order=">", tags=RAW_TAGS),
        "is a raw image of a camera",
        "develop",
    ),
    "raw samples": (
        write.tiff(PIXELS[:, :, :1], 8, 32803),
        "is a raw image of a camera",
        "develop",
    ),
    "PSD": (b"8BPS\0\1", "is a Photoshop document", "convert"),
    "PPM": (saved("PPM"), "is a PNM image", "convert"),
    "ICO": (saved("ICO"), "is an icon", "convert"),
    "NumPy": (b"\x93NUMPY\1\0", "is a NumPy array", "convert"),
    "DICOM": (bytes(128) + b"DICM", "is a DICOM file", "convert"),
    "AppleDouble": (
        b"\0\5\x16\7\0\2\0\0Mac OS X",
        "an AppleDouble file of macOS",
        "move it elsewhere",
    ),
    "Thumbs.db": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an OLE file such as Thumbs.db",
        "move it elsewhere",
    ),
    "text": ("Schöne Grüße\n".encode(), "is not an image but a text file", "move it elsewhere"),
    "text of an older encoding": (
        "Schöne Grüße\n".encode("latin-1"),
        "is not an image but a text file",
        "replace it",
    ),
    "bytes of 255": (
        b"\xff" * 5000,
        "is not an image but nothing but bytes of 255",
        "copy it again",
    ),
    "PGP": (
        b"-----BEGIN PGP MESSAGE-----\n\nhQE",
        "is not an image but an encrypted file",
        "decrypt",
    ),
    "JPEG copied as text": (
        saved("JPEG").decode("latin-1").encode(),
        "is a JPEG copied as text",
        "binary",
    ),
    "JPEG replaced as text": (
        saved("JPEG").decode(errors="replace").encode(),
        "is a JPEG copied as text",
        "binary",
    ),
    "TGA": (saved("TGA"), "is a TGA image", "convert"),
    "TGA with a palette": (
        b"\0\1\1\0\0\0\1\x18\0\0\0\0\x08\0\x08\0\x08\0",
        "is a TGA image",
        "convert",
    ),
    "PCX": (saved("PCX"), "is a PCX image", "convert"),
    "JPEG XR": (b"II\xbc\1\x08\0\0\0", "is a JPEG XR image", "convert"),
    "BPG": (b"BPG\xfb\0", "is a BPG image", "convert"),
    "EMF": (b"\1\0\0\0" + bytes(36) + b" EMF", "is an EMF drawing", "convert"),
    "WMF": (b"\xd7\xcd\xc6\x9a\0\0", "is a WMF drawing", "convert"),
    "XBM": (b"#define x_width 8\n#define x_height 8\n", "is an XBM or XPM image", "convert"),
    "EXR": (b"v/1\1\2\0\0\0", "is an OpenEXR image", "convert"),
    "HDR": (b"#?RADIANCE\n", "is a Radiance HDR image", "convert"),
    "FITS": (b"SIMPLE  =                    T", "is a FITS image", "convert"),
    "DDS": (b"DDS |\0\0\0", "is a texture", "convert"),
    "noise": (bytes([3, 200, 7, 1] * 9), "is not an image but a file of an unknown kind", ""),
    "PNG of a text transfer": (
        saved("PNG").replace(b"\r\n", b"\n"),
        "is a PNG copied as text",
        "binary",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_images_that_are_read(name: str) -> None:
    assert images.kind_of(READ[name]) == images.kind_of(READ[name][:32]) == name
    assert images.is_image(READ[name])
    assert images.decode(READ[name]).shape == (8, 8, 3)


@pytest.mark.parametrize("brand", [b"miaf", b"MiHB", b"1pic", b"heif", b"MA1B", b"mif1", b"heic"])
@pytest.mark.parametrize("name", ["an AVIF image", "a HEIC image"])
def test_the_compatible_brands_say_what_a_file_is_too(name: str, brand: bytes) -> None:
    data = READ[name][:8] + brand + READ[name][12:]
    if brand != b"heic" or name != "an AVIF image":
        assert images.kind_of(data) == name


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_read_is_named_with_the_way_out(name: str) -> None:
    data, what, way_out = REFUSED[name]
    for read in (images.check, images.decode):
        with pytest.raises(images.ImageError) as caught:
            read(data)
        message = str(caught.value)
        assert message.startswith("is ")
        assert what in message
        assert way_out in message
        assert "\n" not in message
        assert "remove" not in message
    assert images.kind_of(data) in message
    assert not images.is_image(data)


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize(
    "before", [b"\n", b"\r\n", b"\0\0\0\0", b"\xef\xbb\xbf", b"\xef\xbb\xbf \n"]
)
def test_images_that_begin_late_are_named(name: str, before: bytes) -> None:
    with pytest.raises(images.ImageError, match=f"is {name} behind .*: copy it again in binary"):
        images.check(before + READ[name])


@pytest.mark.parametrize("name", READ)
def test_images_written_as_text_are_named(name: str) -> None:
    data = READ[name]
    groups = [data[at : at + 16].hex(" ", 2) for at in range(0, len(data), 16)]
    xxd = "".join(f"{16 * at:08x}: {group}  ......\n" for at, group in enumerate(groups))
    for text, kind in (
        (base64.b64encode(data), "Base64 text"),
        (b"\xef\xbb\xbf" + base64.encodebytes(data), "Base64 text"),
        (base64.urlsafe_b64encode(data), "Base64 text"),
        (data.hex().encode(), "a hex dump"),
        (data.hex(" ").upper().encode(), "a hex dump"),
        (xxd.encode(), "a hex dump"),
    ):
        with pytest.raises(
            images.ImageError, match=f"is not an image but {kind} of {name}: decode"
        ):
            images.check(text)


@given(data=st.one_of(st.binary(max_size=600), st.text().map(str.encode)))
def test_every_sequence_of_bytes_is_of_some_kind(data: bytes) -> None:
    kind = images.kind_of(data)
    assert kind
    assert images.is_image(data) == (kind in READ)


def test_every_suffix_is_in_lower_case_with_its_dot() -> None:
    assert {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".heic"} < set(
        images.SUFFIXES
    )
    assert all(each == each.lower() and each.startswith(".") for each in images.SUFFIXES)


def test_without_pillow_heif_the_message_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from fgr_jax.data import images\n"
        "data = sys.stdin.buffer.read()\n"
        "for read in (images.check, images.decode):\n"
        "    try: read(data)\n"
        "    except images.ImageError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=READ["a HEIC image"], capture_output=True, check=True
    )
    message = "is a HEIC image: pip install 'fgr-jax[heic]', or convert it to JPEG or PNG\n"
    assert done.stdout.decode() == 2 * message
    assert not done.stderr

"""The orientation of an image, in its EXIF or XMP metadata."""

import contextlib
import re
from collections.abc import Mapping
from typing import Any
from xml.parsers import expat

import PIL.Image
from PIL import ExifTags

_NAME = "http://ns.adobe.com/tiff/1.0/ Orientation"
# Of a packet that is no XML, because it does not declare the prefix for example.
_PATTERN = re.compile(r"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\s*[\"'<]")
_LONGEST = 1 << 24  # bytes of a packet


def stated(exif: bytes | None, xmp: bytes | str | None) -> int:
    """Returns the orientation, 1 to 8, in EXIF, or else in XMP; 1 if neither can be read."""
    return (in_exif(exif) if exif else None) or (in_xmp(xmp) if xmp else None) or 1


def in_exif(exif: bytes) -> int | None:
    """Returns the orientation in EXIF, or None if there is none that has a meaning."""
    tags = PIL.Image.Exif()
    try:
        tags.load(exif)
        return _valid(tags.get(ExifTags.Base.Orientation))
    except Exception:  # damaged metadata do the pixels no harm
        return None


def in_tiff(tags: Mapping[int, Any]) -> int | None:
    """Returns the orientation in the tags of a TIFF, or None if there is none that has a meaning."""
    return _valid(tags.get(ExifTags.Base.Orientation))


def raw_profile(info: Mapping[Any, Any]) -> bytes | None:
    """Returns the EXIF that ImageMagick writes into the text of a PNG, as Pillow has read it."""
    for name in ("exif", "APP1"):
        text = info.get(f"Raw profile type {name}")
        if isinstance(text, str):
            with contextlib.suppress(ValueError):
                profile = bytes.fromhex("".join(text.split("\n")[3:]))
                if profile.startswith((b"Exif\0\0", b"II*\0", b"MM\0*")):
                    return profile
    return None


def _valid(value: Any) -> int | None:
    """Returns an orientation as it is stored, of whatever type, or None if it has no meaning."""
    if isinstance(value, bytes | tuple) and value:
        value = value[0]
    return int(value) if value in range(1, 9) else None


def in_xmp(packet: bytes | str) -> int | None:
    """Returns the orientation in an XMP packet, or None if there is none that has a meaning.

    Nothing is fetched, and a packet with a document type, which could declare entities, is not read.
    """
    if len(packet) > _LONGEST:
        return None
    found: list[str] = []
    is_inside = False

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal is_inside
        is_inside = name == _NAME
        if is_inside:
            found.append("")
        elif _NAME in attributes:
            found.append(attributes[_NAME])

    def end(_: str) -> None:
        nonlocal is_inside
        is_inside = False

    def text(part: str) -> None:
        if is_inside:
            found[-1] += part

    def refuse(*_: Any) -> None:
        raise ValueError("an XMP packet has no document type")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, refuse
    try:
        parser.Parse(packet.strip("\0 \r\n") if isinstance(packet, str) else _trimmed(packet), True)
    except expat.ExpatError:
        if not found:
            as_text = packet if isinstance(packet, str) else packet.decode("latin-1")
            found = _PATTERN.findall(as_text)
    except ValueError:
        return None
    return _valid(int(found[0])) if found and re.fullmatch(r"\s*[1-8]\s*", found[0]) else None


def _trimmed(packet: bytes) -> bytes:
    is_wide = packet.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in packet[:2]
    return packet if is_wide else packet.strip(b"\0 \r\n")

"""What a file is, from its first bytes, and what the user can do if it is not an image that is read."""

import base64
import codecs
import contextlib
import re
import struct
from typing import NamedTuple

# Of files that may be images which are read; the bytes decide.
SUFFIXES = (
    *(".apng", ".avif", ".bmp", ".dib", ".gif", ".heic", ".heif", ".hif", ".jfif", ".jpe"),
    *(".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp"),
)


class Kind(NamedTuple):
    """What a file is."""

    name: str  # "a JPEG", "a PDF document"
    format: str = ""  # Pillow's name of an image format that is read
    way_out: str = ""  # what the user can do if it is not read

    @property
    def is_image(self) -> bool:
        return bool(self.format) or self.way_out in (_CONVERT, _DEVELOP, _COPY)


_CONVERT = "convert it to JPEG or PNG"
_DEVELOP = "develop it to JPEG or 8-bit TIFF"
_FRAMES = "extract its frames as images"
_EXPORT = "export its images as JPEG or PNG"
_UNPACK = "unpack it"
_MOVE = "replace it or move it elsewhere"
_DECODE = "decode it"
_DOWNLOAD = "download the image itself"
_COPY = "copy it again in binary mode"
_HEIC = "pip install 'fgr-jax[heic]', or convert it to JPEG or PNG"

_RAW = Kind("a raw image of a camera", way_out=_DEVELOP)
_UNKNOWN = Kind("a file of an unknown kind", way_out=_MOVE)

# The first pattern that matches the beginning decides.
_BINARY = (
    (rb"\xff\xd8", Kind("a JPEG", "JPEG")),
    (rb"\x89PNG\r\n\x1a\n", Kind("a PNG", "PNG")),
    (rb"RIFF.{4}WEBP", Kind("a WebP", "WEBP")),
    (rb"GIF8[79]a", Kind("a GIF", "GIF")),
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", Kind("a BMP", "BMP")),
    (rb"II\*\0.{4}CR|II\x1a\0\0\0HEAPCCDR|....ftypcrx |II(?:RO|RS|U\0)|MMOR", _RAW),
    (rb"FUJIFILMCCD-RAW|FOVb|\0MRM", _RAW),
    (rb"MM\0\+", Kind("a big-endian BigTIFF", way_out=_CONVERT)),
    (rb"II[*+]\0|MM\0\*|MM\*\0|II\0\*", Kind("a TIFF", "TIFF")),
    # The major brand, the minor version and the compatible brands.
    (rb"....ftyp(?:....){0,16}?avi[fs]", Kind("an AVIF image", "AVIF")),
    (rb"....ftyp(?:....){0,16}?(?:he[iv][cxms]|mif1|msf1)", Kind("a HEIC image", "HEIF", _HEIC)),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", Kind("a JPEG XL image", way_out=_CONVERT)),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", Kind("a JPEG 2000 image", way_out=_CONVERT)),
    (
        rb"\x89PNG(?:\n\x1a|\r\r)|(?:\xef\xbf\xbd|\xc2\x89)PNG",
        Kind("a PNG copied as text", way_out=_COPY),
    ),
    (rb"....(?:ftyp|moov|mdat|wide)|RIFF.{4}AVI |\x1aE\xdf\xa3", Kind("a video", way_out=_FRAMES)),
    (rb"FLV\x01|\0\0\x01[\xb3\xba]", Kind("a video", way_out=_FRAMES)),
    (rb"RIFF.{4}WAVE|ID3|OggS|fLaC|\xff[\xf2\xf3\xfb]", Kind("a sound file", way_out=_MOVE)),
    (rb"8BPS", Kind("a Photoshop document", way_out=_CONVERT)),
    (rb"gimp xcf", Kind("a GIMP document", way_out=_CONVERT)),
    (rb"P[1-7f]\s+[\d#]|PF\s+\d", Kind("a PNM image", way_out=_CONVERT)),
    (rb"v/1\x01", Kind("an OpenEXR image", way_out=_CONVERT)),
    (rb"#\?(?:RADIANCE|RGBE)", Kind("a Radiance HDR image", way_out=_CONVERT)),
    (rb"qoif", Kind("a QOI image", way_out=_CONVERT)),
    (rb"DDS |\xabKTX ", Kind("a texture", way_out=_CONVERT)),
    (rb"II\xbc", Kind("a JPEG XR image", way_out=_CONVERT)),
    (rb"BPG\xfb", Kind("a BPG image", way_out=_CONVERT)),
    (rb"FLIF[1-9A-D]", Kind("a FLIF image", way_out=_CONVERT)),
    (rb"\x8aMNG|\x8bJNG", Kind("an MNG image", way_out=_CONVERT)),
    (rb"\x01\0\0\0.{36} EMF", Kind("an EMF drawing", way_out=_CONVERT)),
    (rb"\xd7\xcd\xc6\x9a", Kind("a WMF drawing", way_out=_CONVERT)),
    (rb"\n[\0\2-\5][\0\1][\1\2\4\x08]", Kind("a PCX image", way_out=_CONVERT)),
    (rb"\0\0[\1\2]\0[^\0]\0|icns", Kind("an icon", way_out=_CONVERT)),
    (rb".{128}DICM", Kind("a DICOM file", way_out=_CONVERT)),
    (rb"SIMPLE  =", Kind("a FITS image", way_out=_CONVERT)),
    (rb"\x89HDF", Kind("an HDF5 file", way_out=_EXPORT)),
    (rb"\x93NUMPY", Kind("a NumPy array", way_out=_CONVERT)),
    (rb"AT&TFORM", Kind("a DjVu document", way_out=_EXPORT)),
    (rb"%PDF-", Kind("a PDF document", way_out=_EXPORT)),
    (rb"%!PS|\xc5\xd0\xd3\xc6", Kind("a PostScript file", way_out=_EXPORT)),
    (rb"PK(?:\x03\x04|\x05\x06|\x07\x08)", Kind("a zip archive", way_out=_UNPACK)),
    (rb"\x1f\x8b", Kind("a gzip archive", way_out=_UNPACK)),
    (rb"BZh[1-9]", Kind("a bzip2 archive", way_out=_UNPACK)),
    (rb"\xfd7zXZ\0", Kind("an xz archive", way_out=_UNPACK)),
    (rb"\x28\xb5\x2f\xfd", Kind("a Zstandard archive", way_out=_UNPACK)),
    (rb"\x1f\x9d", Kind("a Unix compress archive", way_out=_UNPACK)),
    (rb"\x04\x22M\x18|\x02\x21L\x18", Kind("an LZ4 archive", way_out=_UNPACK)),
    (rb"LZIP", Kind("an lzip archive", way_out=_UNPACK)),
    (rb"\x89LZO\0", Kind("an lzop archive", way_out=_UNPACK)),
    (rb"MSCF\0{4}", Kind("a Cabinet archive", way_out=_UNPACK)),
    (rb"7z\xbc\xaf\x27\x1c", Kind("a 7-Zip archive", way_out=_UNPACK)),
    (rb"Rar!\x1a\x07", Kind("a RAR archive", way_out=_UNPACK)),
    (rb".{257}ustar", Kind("a tar archive", way_out=_UNPACK)),
    (rb"\0\x05\x16[\0\x07]", Kind("an AppleDouble file of macOS", way_out=_MOVE)),
    (rb"\xd0\xcf\x11\xe0", Kind("an OLE file such as Thumbs.db", way_out=_MOVE)),
    (rb"PAR1|SQLite format 3", Kind("a database", way_out=_EXPORT)),
    (rb"\x7fELF|MZ.{58}", Kind("a program", way_out=_MOVE)),
    (rb"L\0\0\0\x01\x14\x02\0", Kind("a Windows shortcut", way_out="copy the image itself")),
    (rb"\0+\Z", Kind("nothing but zeros", way_out="copy it again")),
    (rb"\xff+\Z", Kind("nothing but bytes of 255", way_out="copy it again")),
    (rb"\xc3\xbf\xc3\x98|(?:\xef\xbf\xbd){4}", Kind("a JPEG copied as text", way_out=_COPY)),
    # These have no signature: type of image, origin, size, and bits of a pixel.
    (
        rb".(?:\0[\2\3\x0a\x0b]\0{5}|\x01[\x01\x09]....[\x0f\x10\x18\x20])"
        rb".{4}(?!\0\0)..(?!\0\0)..[\x08\x0f\x10\x18\x20][\0-\x3f]",
        Kind("a TGA image", way_out=_CONVERT),
    ),
)
# White space and a byte-order mark before them are skipped.
_TEXT = (
    (rb"version https://(?:git-lfs|hawser)", Kind("a Git LFS pointer", way_out="run git lfs pull")),
    (rb"\S*annex/objects/", Kind("a git-annex pointer", way_out="run git annex get")),
    (rb"(?i:data:image/)", Kind("a data URL", way_out="decode its Base64 text")),
    (
        rb"(?i:(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*|<!doctype svg.*?>\s*)*<svg[\s>])",
        Kind("an SVG drawing", way_out=_CONVERT),
    ),
    (
        rb"(?i:(?:<\?xml.*?\?>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body|script)[\s>])",
        Kind("an HTML page", way_out=_DOWNLOAD),
    ),
    (rb"#define \S+_width\s+\d|/\* XPM \*/", Kind("an XBM or XPM image", way_out=_CONVERT)),
    (rb"HTTP/\d", Kind("an HTTP response", way_out=_DOWNLOAD)),
    (rb"--\S+\r?\nContent-", Kind("a form that was uploaded", way_out=_DOWNLOAD)),
    (rb"\[InternetShortcut\]", Kind("an internet shortcut", way_out=_DOWNLOAD)),
    (rb"-----BEGIN PGP MESSAGE", Kind("an encrypted file", way_out="decrypt it")),
    (rb"<[?!a-zA-Z]", Kind("an XML document", way_out=_DOWNLOAD)),
    (rb"[\[{]\s*[\"\[{\]}\d-]", Kind("a JSON document", way_out=_DOWNLOAD)),
)
_MATCHERS = {
    table: [(re.compile(pattern, re.DOTALL), kind) for pattern, kind in table]
    for table in (_BINARY, _TEXT)
}
_COLUMNS = re.compile(rb"(?m)^[0-9a-f]{7,8}: |  .*$")  # of a hex dump, beside the bytes
_URL_SAFE = bytes.maketrans(b"+/", b"-_")  # the digits of Base64 that differ
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FIRST_BYTES = 4096  # are enough for every pattern


def kind_of(data: bytes) -> str:
    """Returns what a file is, with its article: "a JPEG", "a PDF document", "a Git LFS pointer".

    Args:
      data: the file, or its first 4096 bytes.
    """
    return identify(data).name


def is_image(data: bytes) -> bool:
    """Returns whether a file begins like an image of a format that is read.

    Args:
      data: the file, or its first 4096 bytes.
    """
    return bool(identify(data).format)


def identify(data: bytes) -> Kind:
    """Returns what a file is, and what can be done about it if it is not an image that is read."""
    if not data:
        return Kind("empty", way_out="copy it again")
    first = data[:_FIRST_BYTES]
    for matcher, kind in _MATCHERS[_BINARY]:
        if matcher.match(first):
            return _RAW if kind.format == "TIFF" and _is_raw(data) else kind
    text = first.removeprefix(_BYTE_ORDER_MARK).lstrip()
    for matcher, kind in _MATCHERS[_TEXT]:
        if matcher.match(text):
            return kind
    return _hidden_image(first) or (
        Kind("a text file", way_out=_MOVE) if _is_text(first) else _UNKNOWN
    )


def _hidden_image(first: bytes) -> Kind | None:
    """Returns what a file is whose image begins late or is written as text."""
    rest = first.removeprefix(_BYTE_ORDER_MARK).lstrip(b"\0\t\n\v\f\r ")
    begin = len(first) - len(rest)
    for start in range(begin, max(begin - 5, 0), -1):  # of some the first four bytes are a length
        if late := _image_in(first[start:]):
            return Kind(f"{late.name} behind bytes that are not its own", way_out=_COPY)
    words = b"".join(_COLUMNS.sub(b"", rest).split())
    hexadecimal = re.match(rb"(?:[0-9a-fA-F]{2}){8,}", words)
    if hexadecimal and (inner := _image_in(bytes.fromhex(hexadecimal[0].decode()))):
        return Kind(f"a hex dump of {inner.name}", way_out=_DECODE)
    base_64 = re.match(rb"(?:[\w+/-]{4}){4,}", words, re.ASCII)
    if base_64 and (inner := _image_in(base64.urlsafe_b64decode(base_64[0].translate(_URL_SAFE)))):
        return Kind(f"Base64 text of {inner.name}", way_out=_DECODE)
    return None


def _image_in(data: bytes) -> Kind | None:
    for matcher, kind in _MATCHERS[_BINARY]:
        if matcher.match(data):
            return kind if kind.format else None
    return None


def _is_text(first: bytes) -> bool:
    if not re.fullmatch(rb"[^\0-\x08\x0e-\x1a\x1c-\x1f\x7f]*", first):
        return False
    with contextlib.suppress(UnicodeDecodeError):
        codecs.getincrementaldecoder("utf-8")().decode(first)  # the last character may be cut
        return True
    return 3 * sum(byte >= 0x80 for byte in first) < len(first)  # of an older encoding


def _is_raw(data: bytes) -> bool:
    """Returns whether a TIFF is a camera's, whose first image is a thumbnail or a sensor's samples."""
    order = "<" if data[:1] == b"I" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        entries = [
            struct.unpack_from(order + "HHI4s", data, start + 2 + 12 * n) for n in range(count)
        ]
    except struct.error:
        return False
    short = {3: "H", 4: "I"}
    tags = {
        tag: struct.unpack_from(order + short.get(kind, "I"), value)[0]
        for tag, kind, _, value in entries
    }
    # DNG's version; a color filter array or linear raw; a thumbnail before the image itself.
    return (
        50706 in tags or tags.get(262) in (32803, 34892) or (330 in tags and tags.get(254, 0) == 1)
    )

"""File names that every file system takes."""

import hashlib
import os

_LONGEST = 255  # bytes of a name, on nearly all file systems
_DIGEST = 8  # hex digits
# Besides control characters: what not all file systems allow in names.
_REPLACED = str.maketrans(
    dict.fromkeys('/\\:*?"<>|\x7f', "_") | {chr(code): "_" for code in range(32)}
)


def shortened(name: str, longest: int = _LONGEST) -> str:
    """Returns `name`, or, if it is longer than `longest` bytes, its beginning and a digest of it."""
    encoded = os.fsencode(name)
    if len(encoded) <= longest:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST]
    beginning = encoded[: longest - _DIGEST - 1].decode("utf-8", "ignore")
    return f"{beginning}~{digest}"


def with_suffix(name: str, suffix: str) -> str:
    """Appends `suffix` to the name of a file, which is shortened if the result would be too long."""
    return shortened(name, _LONGEST - len(os.fsencode(suffix))) + suffix


def as_part(text: str) -> str:
    """Returns `text` without the characters that cannot be in the name of a file."""
    return text.translate(_REPLACED)

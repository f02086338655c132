"""The exception whose message is meant for the user, and text as it is shown at the terminal."""

import unicodedata

# Of format characters, which also join emoji, those that reorder text until they are ended.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class UserError(Exception):
    """An error that the user can fix: in a config field, a path, a file, or a full disk.

    The message is one line that names the cause, its value and the remedy; each further argument is a
    line of its own. The entry points print it without a traceback and exit with a non-zero status; a
    traceback is for our own bugs only.
    """

    exit_status = 1

    def __str__(self) -> str:
        return "\n  ".join(map(shown, self.args))


class DivergedError(UserError):
    """The loss or the weights of a run became infinite or NaN."""

    exit_status = 3


def shown(text: object) -> str:
    """Returns `text` as it can be shown in one line.

    Control characters, line separators and characters that reorder text are escaped, and so are the
    bytes of a file name that is not UTF-8.
    """
    return "".join(
        character if _is_plain(character) else _escaped(character) for character in str(text)
    )


def _is_plain(character: str) -> bool:
    category = unicodedata.category(character)
    return category not in ("Cc", "Cs", "Zl", "Zp") and character not in _REORDERING


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python decodes a byte that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")

"""The error of everything here."""


class ImageError(Exception):
    """The bytes are not an image that can be used; the message completes a sentence, "is truncated"."""

"""What came of decoding an image, as something that processes can send to one another."""

from fgr_jax.data import images


def decoded_shape(data: bytes) -> tuple[int, ...] | str:
    """The shape of the decoded image, or the error's text."""
    try:
        return images.decode(data).shape
    except images.ImageError as error:
        return str(error)

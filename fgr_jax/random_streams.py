"""The random numbers of a run, derived from the seed, the name of a stream and the step.

No key is stored in a checkpoint or passed from step to step, so a resumed run draws what the
uninterrupted run would have drawn, and a new stream never shifts the numbers of another.
"""

import enum
import zlib

import jax

# Set explicitly, so that a change of jax's default cannot change a run.
_GENERATOR = "threefry2x32"


class Stream(enum.StrEnum):
    """All streams of a run. A stream's numbers depend on its name, so renaming changes them."""

    PARAMETERS = "parameters"
    """Initial parameters, drawn once."""
    HEAD_START = "head start"
    """What a head draws to compute its first parameters from features; drawn on the host."""
    HEAD = "head"
    """What a head draws in its forward pass, at every step."""
    DIVERSIFICATION = "diversification"
    """Suppressed peaks and patches (paper, equations 2 and 4), drawn at every step."""
    DROP_PATH = "drop path"
    """Residual branches that are left out, drawn at every step."""
    MIXING = "mixing"
    """Shares and boxes of mixup and CutMix, drawn at every step."""
    ORDER = "order"
    """Order of the training examples, different in each epoch; drawn on the host."""
    BALANCE = "balance"
    """Order of the training examples where classes are balanced; drawn on the host."""
    PAIRS = "pairs"
    """Order of the training examples where they come in pairs of a class; drawn on the host."""
    AUGMENTATION = "augmentation"
    """Crops and symmetries of the training images; drawn on the host."""
    VIEWS = "views"
    """Crops and symmetries of the fixed views of training images, the same for all seeds."""
    VIEW_ORDER = "view order"
    """Order in which the fixed views of an image are trained on; drawn on the host."""


def stream_key(seed: int, stream: Stream, step: int | jax.Array = 0) -> jax.Array:
    """Returns the `jax.random` key of `stream` at `step`.

    Args:
      seed: the run's seed, in [0, 2³²).
      stream: the purpose of the numbers.
      step: the training step; may be traced.
    """
    root = jax.random.key(seed, impl=_GENERATOR)
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(stream.encode())), step)


def stream_seed(seed: int, stream: Stream) -> int:
    """Returns the seed of `stream` for generators on the host, in [0, 2³²)."""
    return zlib.crc32(f"{seed}/{stream}".encode())

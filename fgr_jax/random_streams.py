"""Every random number of a run comes from here: seed + name of the stream + step.

No key is stored in a checkpoint and none is handed from step to step, so a resumed run draws what
the uninterrupted run would have drawn, and a new stream never shifts the numbers of another.
"""

import zlib

import jax

# Named, so that a change of jax's default cannot change a run.
_GENERATOR = "threefry2x32"


def stream_key(seed: int, stream: str, step: int | jax.Array = 0) -> jax.Array:
    """The `jax.random` key of `stream` at `step`.

    Args:
      seed: the run's seed, in [0, 2³²).
      stream: what the numbers are for, such as "diversification".
      step: the training step; may be traced.
    """
    root = jax.random.key(seed, impl=_GENERATOR)
    return jax.random.fold_in(jax.random.fold_in(root, _crc(stream)), step)


def stream_seed(seed: int, stream: str) -> int:
    """The seed of `stream` for generators on the host, in [0, 2³²)."""
    return _crc(f"{seed}/{stream}")


def _crc(text: str) -> int:
    return zlib.crc32(text.encode())

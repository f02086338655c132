"""64-bit digests of arrays, computed on the devices, that show whether arrays are bitwise equal.

Each element's bits are mixed with its index, and the results are added as integers modulo 2³². The sum
does not depend on the order, so an array has the same digest on one device or sharded over many.
"""

import zlib
from typing import Any

import jax
import jax.numpy as jnp

_SALTS = (0x9E3779B9, 0x85EBCA6B)  # one for each half of the digest
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def digest(array: jax.Array) -> jax.Array:
    """Returns the digest, uint32 `[2]`, of an array with elements of at most 32 bits."""
    if array.dtype == jnp.bool_:
        bits = array.astype(jnp.uint32)
    else:
        unsigned = _UNSIGNED[array.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)
    index = _index(array.shape)
    return jnp.stack([jnp.sum(_mix(bits ^ _mix(index + jnp.uint32(salt)))) for salt in _SALTS])


def digest_of_tree(tree: Any) -> jax.Array:
    """Returns the digest, uint32 `[2]`, of all leaves of a tree and their paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    total = jnp.zeros(2, jnp.uint32)
    for path, leaf in leaves:
        name = jnp.uint32(zlib.crc32(jax.tree_util.keystr(path).encode()))
        total += _mix(digest(leaf) ^ _mix(name))
    return total


def as_hex(value: Any) -> str:
    """Returns a digest as 16 hexadecimal digits."""
    high, low = (int(half) for half in value)
    return f"{high:08x}{low:08x}"


def _index(shape: tuple[int, ...]) -> jax.Array:
    """Returns each element's row-major index modulo 2³², in the array's shape, without a gather."""
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return index


def _mix(values: jax.Array) -> jax.Array:
    """Applies MurmurHash3's finalizer, a bijection of 32-bit words that mixes all bits."""
    values = values ^ (values >> 16)
    values = values * jnp.uint32(0x85EBCA6B)
    values = values ^ (values >> 13)
    values = values * jnp.uint32(0xC2B2AE35)
    return values ^ (values >> 16)

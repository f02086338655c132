"""64-bit digests of arrays, computed on the devices, that show whether arrays are bitwise equal.

Each element's bits are mixed with its index, and the results are added as integers modulo 2³². The sum
does not depend on the order, so an array has the same digest on one device or sharded over many.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SALTS = (0x9E3779B9, 0x85EBCA6B)  # one for each half of the digest
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def digest(array: jax.Array) -> jax.Array:
    """Returns the digest, uint32 `[2]`, of an array with elements of at most 32 bits."""
    return _of_rows(array[None])[0]


def digests(arrays: Sequence[jax.Array]) -> jax.Array:
    """Returns the digests of arrays, uint32 `[N, 2]`, in their order.

    Arrays of one size and dtype are put together: XLA takes seconds to compile hundreds of sums.
    """
    alike: dict[Any, list[int]] = {}
    for number, array in enumerate(arrays):
        alike.setdefault((array.size, array.dtype), []).append(number)
    # A single array keeps its shape, which may be spread over devices.
    found = [
        digest(arrays[group[0]])[None]
        if len(group) == 1
        else _of_rows(jnp.stack([arrays[number].reshape(-1) for number in group]))
        for group in alike.values()
    ]
    order = [number for group in alike.values() for number in group]
    return jnp.concatenate(found)[np.argsort(order)]


def digest_of_tree(tree: Any) -> jax.Array:
    """Returns the digest, uint32 `[2]`, of all leaves of a tree and their paths."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    if not leaves:
        return jnp.zeros(2, jnp.uint32)
    names = [zlib.crc32(jax.tree_util.keystr(path).encode()) for path, _ in leaves]
    mixed_names = _mix(jnp.asarray(np.array(names, np.uint32)))[:, None]
    of_leaves = _mix(digests([leaf for _, leaf in leaves]) ^ mixed_names)
    return jnp.sum(of_leaves, axis=0, dtype=jnp.uint32)


def as_hex(value: Any) -> str:
    """Returns a digest as 16 hexadecimal digits."""
    high, low = (int(half) for half in value)
    return f"{high:08x}{low:08x}"


def _of_rows(arrays: jax.Array) -> jax.Array:
    """Returns the digest of each row of `arrays` `[N, ...]`, uint32 `[N, 2]`."""
    if arrays.dtype == jnp.bool_:
        bits = arrays.astype(jnp.uint32)
    else:
        unsigned = _UNSIGNED[arrays.dtype.itemsize]
        bits = jax.lax.bitcast_convert_type(arrays, unsigned).astype(jnp.uint32)
    shape = arrays.shape[1:]
    salts = jnp.array(_SALTS, jnp.uint32).reshape(2, *[1] * len(shape))
    # Both halves in one sum, which is compiled in half of the time of two.
    mixed = _mix(bits[:, None] ^ _mix(_index(shape) + salts))
    return jnp.sum(mixed, axis=tuple(range(2, mixed.ndim)), dtype=jnp.uint32)


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

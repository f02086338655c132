"""The arguments of the public functions: what is taken, what is converted, and what is refused by name.

Python numbers, lists, NumPy arrays and JAX arrays are taken alike, and whole numbers where floats are
meant. Values are checked unless they are traced, when they are not known yet.
"""

import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def floats(name: str, value: ArrayLike, shape: str = "") -> jax.Array:
    """Returns `value` as an array of floats, of its own dtype; whole numbers become float32.

    Args:
      name: the argument, for errors.
      value: an array, a number or a list.
      shape: the dimensions that it must have, such as "B, C"; empty: any.

    Raises:
      TypeError: it does not hold numbers.
      ValueError: it has another number of dimensions.
    """
    array = _array(name, value)
    if jnp.issubdtype(array.dtype, jnp.integer):
        array = array.astype(jnp.float32)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must hold numbers, got {array.dtype}")
    if shape and array.ndim != len(shape.split(", ")):
        raise ValueError(f"{name} must be [{shape}], got shape {array.shape}")
    return array


def labels(value: ArrayLike, examples: int) -> jax.Array:
    """Returns the labels of `examples` examples as integers, of their own dtype.

    Raises:
      TypeError: they are not integers.
      ValueError: they are not one for each example.
    """
    if isinstance(value, np.ndarray) and value.dtype.itemsize > 4 and value.dtype.kind in "iu":
        # Otherwise JAX would drop the upper half, and a label out of range would become another one.
        value = np.clip(value, -1, np.iinfo(np.int32).max)
    array = _array("labels", value)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got {array.dtype}")
    if array.shape != (examples,):
        raise ValueError(f"labels must be [B] with B = {examples}, got shape {array.shape}")
    return array


def mask(name: str, value: ArrayLike, examples: int) -> jax.Array:
    """Returns a mask over `examples` examples as booleans.

    Raises:
      ValueError: it is not one value for each example.
    """
    array = _array(name, value).astype(bool)
    if array.shape != (examples,):
        raise ValueError(f"{name} must be [B] with B = {examples}, got shape {array.shape}")
    return array


def at_least_one(name: str, value: ArrayLike) -> int:
    """Returns a whole number, of which shapes depend, as an int.

    Raises:
      TypeError: it is not a whole number, or is traced.
      ValueError: it is less than 1.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise TypeError(
            f"{name} must be a whole number that is not traced, got {value!r}"
        ) from error
    if number < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return number


def check_between(name: str, value: ArrayLike, low: float, high: float) -> None:
    """Checks that a number is in [low, high]; a traced one has no value to check.

    Raises:
      TypeError: it is not a number.
      ValueError: it is outside, or NaN.
    """
    if is_traced(value):
        return
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a number, got {value!r}") from error
    if not np.all((numbers >= low) & (numbers <= high)):
        wanted = f"at least {low:g}" if high == np.inf else f"in [{low:g}, {high:g}]"
        raise ValueError(f"{name} must be {wanted}, got {value}")


def is_traced(value: ArrayLike) -> bool:
    """Returns whether `value` is only known when a compiled function runs."""
    return isinstance(value, jax.core.Tracer)


def _array(name: str, value: ArrayLike) -> jax.Array:
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold numbers, got {value!r}") from error

"""A function as an ONNX file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import onnx

from fgr_jax.export.jaxpr_to_onnx.interpreter import translate
from fgr_jax.export.jaxpr_to_onnx.model import to_model
from fgr_jax.export.jaxpr_to_onnx.simplification import simplified
from fgr_jax.export.jaxpr_to_onnx.values import UnsupportedError


def to_onnx(
    function: Callable[[jax.Array], Mapping[str, jax.Array]],
    input_name: str,
    shape: Sequence[int],
    dtype: Any,
    metadata: Mapping[str, str],
) -> bytes:
    """Returns the ONNX file of a function of one array with any number of rows.

    Args:
      function: maps an array `[B, *shape]` to arrays with B rows, by the names of the outputs.
      input_name: the name of the input.
      shape: of one row.
      dtype: of the input.
      metadata: texts that are stored in the file.

    Raises:
      UnsupportedError: the function has a primitive that is not translated, or the file would have more
        than 2 GB.
    """
    image, outputs = translate(function, shape, dtype)
    model = to_model(input_name, image, simplified(outputs), metadata)
    if model.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF:
        raise UnsupportedError("more than 2 GB of weights")
    return model.SerializeToString()

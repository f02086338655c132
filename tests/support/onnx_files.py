"""ONNX files of functions, and what onnxruntime computes with them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fgr_jax.export.jaxpr_to_onnx.function import to_onnx


def checked_onnx(
    function: Callable[..., Mapping[str, Any]], shape: tuple[int, ...], dtype: Any = np.float32
) -> onnx.ModelProto:
    """Returns the file of a function of "x", `[B, *shape]`, after ONNX's own checks."""
    model = onnx.load_from_string(to_onnx(function, "x", shape, dtype, {}))
    onnx.checker.check_model(model, full_check=True)
    return model


def run_onnx(model: onnx.ModelProto, x: Any) -> dict[str, Any]:
    """Returns the outputs of a file, by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x}), strict=True))


def optimized(model: onnx.ModelProto, path: Any) -> onnx.ModelProto:
    """Returns the file as onnxruntime has optimized it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return onnx.load(path)


def operators(model: onnx.ModelProto) -> list[str]:
    """Returns the operators of a file, in order."""
    return [node.op_type for node in model.graph.node]


def folds_nothing_more(model: onnx.ModelProto) -> bool:
    """Returns whether no convolution is followed by a factor or summand for each channel."""
    makers = {node.output[0]: node.op_type for node in model.graph.node}
    for_channels = {
        constant.name
        for constant in model.graph.initializer
        if np.prod(constant.dims) == (constant.dims[-3] if len(constant.dims) > 2 else 1)
    }
    return not any(
        node.op_type in ("Mul", "Add", "Div", "Sub")
        and any(name in for_channels for name in node.input)
        and any(makers.get(name) == "Conv" for name in node.input)
        for node in model.graph.node
    )

"""Writes tensors as an ONNX model."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fgr_jax.export.jaxpr_to_onnx.simplification import in_order
from fgr_jax.export.jaxpr_to_onnx.tensors import (
    AFFINE,
    INPUT,
    Array,
    Content,
    Tensor,
    stored_dtype,
)

# The first with LayerNormalization. Of the versions that browsers and TensorRT 8.6 read, the newest.
OPSET = 17
_IR_VERSION = 8  # of that opset
_BATCH = "batch"
_GELU = math.sqrt(0.5)  # the factor in erf(x / √2)
# Attributes of others that are inputs of these.
_AXES_ARE_INPUTS = ("ReduceSum",)


def to_model(
    input_name: str, image: Tensor, outputs: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """Returns the model that computes `outputs`, by name, from `image`."""
    graph = _Graph()
    graph.names[id(image)] = input_name
    for tensor in in_order(outputs.values()):
        graph.add(tensor)
    for name, tensor in outputs.items():
        graph.node("Identity", [graph.names[id(tensor)]], name)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "fgr_jax",
            [_described(input_name, image)],
            [_described(name, tensor) for name, tensor in outputs.items()],
            graph.initializers,
        ),
        producer_name="fgr_jax",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    helper.set_model_props(model, dict(metadata))
    return model


class _Graph:
    """The nodes and the constants of a model."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}  # of tensors, by identity
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}  # small ones

    def add(self, tensor: Tensor) -> None:
        """Adds the nodes of a tensor, whose inputs have been added."""
        if tensor.op == INPUT:
            return
        if tensor.op == AFFINE:
            name = self._affine(tensor)
        else:
            inputs = [self._name(each) for each in tensor.inputs]
            name = self.node(*_as_operator(tensor, inputs, self._name))
        self.names[id(tensor)] = name

    def node(
        self,
        op: str,
        inputs: list[str],
        name: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> str:
        """Adds a node and returns the name of its output."""
        name = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **(attributes or {})))
        return name

    def _affine(self, tensor: Tensor) -> str:
        x, scale, shift = tensor.inputs
        name = self._name(x)
        assert not isinstance(scale, Tensor)
        assert not isinstance(shift, Tensor)
        if math.isclose(scale.flat[0], _GELU, rel_tol=1e-6) and scale.size == 1:
            # onnxruntime recognizes GELU by this division.
            name = self.node("Div", [name, self._name(1 / scale)])
        elif np.any(scale != 1):
            name = self.node("Mul", [name, self._name(scale)])
        if np.any(shift) or name == self._name(x):
            name = self.node("Add", [name, self._name(shift)])
        return name

    def _name(self, content: Content) -> str:
        if isinstance(content, Tensor):
            return self.names[id(content)]
        array = _stored(content)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.size < 1000 else None
        if key in self._constants:
            return self._constants[key]
        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        if key:
            self._constants[key] = name
        return name


def _as_operator(tensor: Tensor, inputs: list[str], name: Any) -> Iterator[Any]:
    """Yields the operator, its inputs, no name, and its attributes."""
    attributes = dict(tensor.attributes)
    if tensor.op in _AXES_ARE_INPUTS:
        inputs = [*inputs, name(np.array(attributes.pop("axes"), np.int64))]
    if tensor.op == "Cast":
        attributes["to"] = helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    yield from (tensor.op, inputs, "", attributes)


def _stored(array: Array) -> Array:
    return np.asarray(array, stored_dtype(array.dtype), order="C")


def _described(name: str, tensor: Tensor) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else _BATCH for size in tensor.shape]
    dtype = helper.np_dtype_to_tensor_dtype(stored_dtype(tensor.dtype))
    return helper.make_tensor_value_info(name, dtype, sizes)

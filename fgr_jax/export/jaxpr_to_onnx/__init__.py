"""Functions in JAX as ONNX graphs: each primitive of a traced function becomes one or more operators."""

"""The formats of exported files, and the ends of the files' names."""

SUFFIXES = {
    "onnx": ".onnx",
    "stablehlo": ".stablehlo",
    "safetensors": ".safetensors",
    "page": ".html",
}

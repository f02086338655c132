"""The formats of exported files: how each is written, and how it is read again to be compared."""

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
import safetensors.numpy
from jax import export

from fgr_jax.errors import UserError
from fgr_jax.export import page
from fgr_jax.export.exported_run import IMAGE, ExportedRun, as_texts
from fgr_jax.models.weights.table import to_tensors

# Images, uint8 [B, H, W, 3], to the outputs of a file by name.
Run = Callable[[npt.NDArray[np.uint8]], Mapping[str, npt.NDArray[Any]]]

_PLATFORMS = ("cpu", "cuda", "tpu")


class Format(NamedTuple):
    """How an exported network is written.

    Attributes:
      has_metadata: whether the file holds the metadata; otherwise they are in a JSON file beside it.
      packages: that are needed to write it, by the names they are imported by.
      more_packages: that are needed to run it.
      write: writes a file, given the run, its metadata, the path, and, for a page, `runtime`.
      open: returns what runs a file; None: it holds weights alone.
    """

    has_metadata: bool
    packages: tuple[str, ...]
    more_packages: tuple[str, ...]
    write: Callable[..., None]
    open: Callable[[Path], Run] | None


def check_packages(name: str, *, runs: bool) -> None:
    """Checks that the packages to write a format are installed, and, if it `runs`, to run it.

    Raises:
      UserError: one is not.
    """
    form = FORMATS[name]
    for package in (*form.packages, *(form.more_packages if runs else ())):
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise UserError(
                f"--format={name}: {error.name} is not installed; it needs "
                "pip install 'fgr-jax[train,export]'"
            ) from error


def _as_onnx(exported: ExportedRun, metadata: Mapping[str, Any]) -> bytes:
    from fgr_jax.export.jaxpr_to_onnx.function import to_onnx
    from fgr_jax.export.jaxpr_to_onnx.values import UnsupportedError

    shape = (exported.size, exported.size, 3)
    try:
        return to_onnx(exported.outputs, IMAGE, shape, np.uint8, as_texts(metadata))
    except UnsupportedError as error:
        raise UserError(
            f"--format=onnx: the network of {exported.run.workdir.name} uses {error}, which cannot be "
            "written as ONNX here; --format=stablehlo takes every network"
        ) from error


def _write_onnx(exported: ExportedRun, metadata: Mapping[str, Any], path: Path) -> None:
    path.write_bytes(_as_onnx(exported, metadata))


def _open_onnx(path: Path) -> Run:
    return _running(path.read_bytes())


def _running(model: bytes) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {IMAGE: images}), strict=True))


def _write_page(
    exported: ExportedRun, metadata: Mapping[str, Any], path: Path, *, runtime: Path
) -> None:
    """Writes a page with the network; `runtime` is the folder of onnxruntime-web."""
    text = page.as_page(_as_onnx(exported, metadata), metadata, runtime)
    path.write_text(text, encoding="utf-8")


def _open_page(path: Path) -> Run:
    return _running(page.model_of(path.read_text(encoding="utf-8")))


def _write_stablehlo(exported: ExportedRun, _: Mapping[str, Any], path: Path) -> None:
    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, exported.size, exported.size, 3), np.uint8)
    # GPUs and TPUs would multiply in fewer bits than float32 has unless told otherwise.
    with jax.default_matmul_precision("highest"):
        function = export.export(jax.jit(exported.outputs), platforms=_PLATFORMS)(images)
    path.write_bytes(function.serialize())


def _open_stablehlo(path: Path) -> Run:
    call = jax.jit(export.deserialize(bytearray(path.read_bytes())).call)
    return lambda images: jax.device_get(call(images))


def _write_safetensors(exported: ExportedRun, metadata: Mapping[str, Any], path: Path) -> None:
    trained = exported.trained
    tensors = to_tensors(jax.device_get(trained.variables), trained.network.table)
    path.write_bytes(safetensors.numpy.save(tensors, as_texts(metadata)))


FORMATS: Mapping[str, Format] = {
    "onnx": Format(True, ("onnx",), ("onnxruntime",), _write_onnx, _open_onnx),
    "stablehlo": Format(False, ("flatbuffers",), (), _write_stablehlo, _open_stablehlo),
    "page": Format(True, ("onnx",), ("onnxruntime",), _write_page, _open_page),
    "safetensors": Format(True, (), (), _write_safetensors, None),
}

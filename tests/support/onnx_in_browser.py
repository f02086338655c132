"""What onnxruntime-web computes in Chromium with ONNX files."""

import base64
import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from browser import opened
from tiny_run import ROOT

_LOAD = """async ([script, module, program]) => {
  const element = document.createElement("script");
  element.textContent = script;
  document.head.append(element);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = Uint8Array.from(atob(program), c => c.charCodeAt(0)).buffer;
  const url = URL.createObjectURL(new Blob([module], {type: "text/javascript"}));
  ort.env.wasm.wasmPaths = {mjs: url};
}"""
_RUN = """async ([model, batches]) => {
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const session = await ort.InferenceSession.create(bytes(model), {executionProviders: ["wasm"]});
  const results = [];
  for (const [pixels, dims] of batches) {
    const input = new ort.Tensor("uint8", bytes(pixels), dims);
    const outputs = await session.run({[session.inputNames[0]]: input});
    results.push(Object.fromEntries(
      Object.entries(outputs).map(([name, each]) => [name, [each.dims, [...each.data]]])));
  }
  await session.release();
  return results;
}"""


def runtime() -> Path:
    """The folder of onnxruntime-web; ONNXRUNTIME_WEB names another one."""
    folder = Path(os.environ.get("ONNXRUNTIME_WEB") or ROOT / "node_modules/onnxruntime-web")
    assert folder.is_dir(), (
        f"no {folder}: launch/test.sh installs it; ONNXRUNTIME_WEB names one that is elsewhere"
    )
    return folder


@contextlib.contextmanager
def onnxruntime_web(
    folder: Path,
) -> Iterator[Callable[[onnx.ModelProto, list[Any]], list[dict[str, Any]]]]:
    """A function that applies a file to batches, uint8, each with the outputs by name."""
    page_path = folder / "empty.html"
    page_path.write_text("<!doctype html><title>empty</title>")
    dist = runtime() / "dist"
    with opened(page_path, width=800, height=600) as (page, wrong):
        script, module = (
            (dist / name).read_text(encoding="utf-8")
            for name in ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs")
        )
        program = _base64((dist / "ort-wasm-simd-threaded.wasm").read_bytes())
        page.evaluate(_LOAD, [script, module, program])

        def run(model: onnx.ModelProto, batches: list[Any]) -> list[dict[str, Any]]:
            sent = [[_base64(each.tobytes()), list(each.shape)] for each in batches]
            results = page.evaluate(_RUN, [_base64(model.SerializeToString()), sent])
            return [
                {name: np.reshape(values, dims) for name, (dims, values) in result.items()}
                for result in results
            ]

        yield run
    assert wrong == []  # no request, no error


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()

"""A page that classifies images in the browser: an HTML file with the network and onnxruntime-web."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from fgr_jax.errors import UserError

# Of the npm package onnxruntime-web: its script, and what that loads.
_FILES = {
    "script": "ort.wasm.min.js",
    "module": "ort-wasm-simd-threaded.mjs",
    "program": "ort-wasm-simd-threaded.wasm",
}


def check_runtime(folder: Path) -> None:
    """Checks that `folder` is that of an installed onnxruntime-web.

    Raises:
      UserError: a file is missing.
    """
    for name in _FILES.values():
        if not (folder / "dist" / name).is_file():
            raise UserError(
                f"--onnxruntime_web={folder}: has no dist/{name}: name the folder of the npm package, "
                "such as node_modules/onnxruntime-web after npm install onnxruntime-web"
            )


def as_page(model: bytes, facts: Mapping[str, Any], folder: Path) -> str:
    """Returns the page.

    Args:
      model: the ONNX file.
      facts: its metadata, as values of JSON.
      folder: of onnxruntime-web.
    """
    parts = {kind: (folder / "dist" / name).read_bytes() for kind, name in _FILES.items()}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fgr_jax.export", "template"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        # In a script, only these would end it.
        script=parts["script"].decode().replace("</script", r"<\/script").replace("<!--", r"<\!--"),
        facts=json.dumps(facts).replace("<", r"\u003c"),
        accuracy=facts.get("accuracy"),
        classes=len(facts["class_names"]),
        network=facts["network"],
        weights=facts.get("weights", ""),
        **{
            name: base64.b64encode(content).decode()
            for name, content in {**parts, "model": model}.items()
            if name != "script"
        },
    )


def model_of(page: str) -> bytes:
    """Returns the ONNX file in a page."""
    _, _, rest = page.partition('<script id="model" type="text/plain">')
    return base64.b64decode(rest.partition("</script>")[0])

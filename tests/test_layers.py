"""Imports run one way, and whoever wants only the block and the loss gets nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "fgr_jax"

# From the bottom up. A package or module imports only itself and what is in the lines above its own.
LAYERS = [
    ["errors", "durations", "random_streams", "digests", "diversification", "losses"],
    ["terminal", "files", "distributed", "config"],
    ["calendar", "cli"],
    ["runs"],
    ["models", "data"],
    ["train"],
    ["inference"],
    ["evaluate"],
    ["predict"],
    ["benchmark", "sweep", "report"],
    ["main", "prepare", "verify", "export_weights"],
]


def test_imports_run_one_way() -> None:
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    found = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")
    }
    assert found - {"__init__"} == set(level)
    for path in PACKAGE.rglob("*.py"):
        layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _imported(node):
                other = name.split(".")[1]
                below = level[other] < level[layer]
                assert below or (other == layer), f"{path} imports {name}"


def _imported(node: ast.AST) -> list[str]:
    """Full names of our own modules that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module == "fgr_jax":
        names = [f"fgr_jax.{alias.name}" for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    else:
        names = []
    return [name for name in names if name.startswith("fgr_jax.")]


def test_the_block_and_the_loss_need_only_jax() -> None:
    code = (
        "import sys, fgr_jax\n"
        "for name in ('flax', 'optax', 'grain', 'cv2', 'tensorflow_datasets', 'absl', 'orbax'):\n"
        "    assert name not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

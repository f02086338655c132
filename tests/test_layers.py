"""Imports run one way."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "fgr_jax"

# From the bottom up. A package or module imports only itself and what is in the lines above its own.
LAYERS = [
    ["arguments", "huge_pages", "signals"],
    [
        "errors",
        "output",
        "durations",
        "random_streams",
        "digests",
        "diversification",
        "losses",
        "per_class",
    ],
    ["terminal", "files", "distributed", "config"],
    ["calendar", "cli", "compilation"],
    ["data"],
    ["runs"],
    ["models"],
    ["features"],
    ["train"],
    ["inference"],
    ["evaluate"],
    ["predict"],
    ["benchmark", "export", "sweep", "report", "serve"],
    ["main", "prepare", "verify", "__main__"],
]


# The same within `data`.
DATA_LAYERS = [
    ["augmentation", "balance", "mixing", "identity", "read_ahead"],
    ["images", "pairs"],
    ["image_files"],
    ["batch", "prepare"],
    ["sets"],
    ["source"],
    ["pipeline"],
]


@pytest.mark.parametrize(("package", "layers"), [("", LAYERS), ("data", DATA_LAYERS)])
def test_imports_run_one_way(package: str, layers: list[list[str]]) -> None:
    level = {name: number for number, names in enumerate(layers) for name in names}
    root = PACKAGE / package
    depth = len(root.relative_to(PACKAGE.parent).parts)
    found = {path.relative_to(root).parts[0].removesuffix(".py") for path in root.rglob("*.py")}
    assert found - {"__init__"} == set(level)
    for path in root.rglob("*.py"):
        layer = path.relative_to(root).parts[0].removesuffix(".py")
        if layer == "__init__":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _imported(node, root.relative_to(PACKAGE.parent).as_posix()):
                other = name.split(".")[depth]
                below = level[other] < level[layer]
                assert below or (other == layer), f"{path} imports {name}"


def _imported(node: ast.AST, root: str) -> list[str]:
    """Full names of what an import statement takes from the package in the folder `root`."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        names = []
    return [name for name in names if name.startswith(root.replace("/", ".") + ".")]

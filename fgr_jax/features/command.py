"""Lists and removes features."""

import json
from pathlib import Path

from fgr_jax.errors import UserError
from fgr_jax.features.description import in_words
from fgr_jax.features.opening import features_dir
from fgr_jax.features.store import DESCRIPTION, remove
from fgr_jax.terminal import Terminal


def list_or_remove(data_dir: str, name: str | None) -> None:
    """Shows all features beside the data sets of a folder, or removes some.

    Args:
      data_dir: as `data.data_dir`.
      name: of the features to remove, or "all"; None: they are shown.

    Raises:
      UserError: there are none of this name, or they cannot be removed.
    """
    terminal, folder = Terminal(), features_dir(data_dir)
    found = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{DESCRIPTION}"))}
    if name is None:
        _list(found, folder, terminal)
        return
    if name != "all" and name not in found:
        raise UserError(f"--remove={name}: there are no features of this name in {folder}")
    removed = found if name == "all" else {name: found[name]}
    for each, path in removed.items():
        size = _size(path)
        remove(path)
        terminal.line(f"removed {each}, {in_words(size)}")
    if not removed:
        terminal.line(f"there are no features in {folder}")


def _list(found: dict[str, Path], folder: Path, terminal: Terminal) -> None:
    rows = [(name, *_row(path), in_words(_size(path))) for name, path in found.items()]
    if rows:
        header = ("name", "data", "backbone", "frozen", "images", "views", "size")
        terminal.table(f"features in {folder}", rows, header)
    else:
        terminal.line(f"there are no features in {folder}")


def _row(folder: Path) -> tuple[str, ...]:
    """Returns the cells that the description of a folder fills."""
    try:
        about = json.loads((folder / DESCRIPTION).read_bytes())
        data, network = about["data"], about["network"]
        crops = "center" if about["crops"] == "center" else str(about["views"])
        name = f"{about['data_set']} {data['split']}"
        return name, network["backbone"], network["frozen"], f"{about['examples']:,}", crops
    except (OSError, ValueError, KeyError, TypeError):
        return "damaged", "", "", "", ""


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())

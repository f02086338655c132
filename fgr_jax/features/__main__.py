"""Lists and removes the features that runs with a frozen backbone have computed.

    python -m fgr_jax.features --list [--config.data.data_dir=DIR]
    python -m fgr_jax.features --remove=NAME|all [--config.data.data_dir=DIR]

A run whose features are removed computes them again.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from fgr_jax.errors import UserError
from fgr_jax.features.description import in_words
from fgr_jax.features.opening import features_dir
from fgr_jax.features.store import DESCRIPTION, remove
from fgr_jax.terminal import Terminal

_FIELD = "data.data_dir"


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_bool("list", False, "show all features", flag_values=own)
    flags.DEFINE_string("remove", None, "NAME or all", flag_values=own)
    fields = cli.parse_fields(argv, __doc__ or "", own)
    others = sorted(fields.keys() - {_FIELD})
    if others:
        raise UserError(f"--config.{others[0]}: only {_FIELD} is of use here")
    if own.list == (own.remove is not None):
        raise UserError("needs either --list or --remove=NAME")
    terminal, folder = Terminal(), features_dir(fields.get(_FIELD, ""))
    found = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{DESCRIPTION}"))}
    if own.list:
        _list(found, folder, terminal)
        return 0
    if own.remove != "all" and own.remove not in found:
        raise UserError(f"--remove={own.remove}: there are no features of this name in {folder}")
    removed = found if own.remove == "all" else {own.remove: found[own.remove]}
    for name, path in removed.items():
        size = _size(path)
        remove(path)
        terminal.line(f"removed {name}, {in_words(size)}")
    if not removed:
        terminal.line(f"there are no features in {folder}")
    return 0


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


if __name__ == "__main__":
    cli.run(main)

"""birds_block.py on maps of 7×7 cells, from images of 224×224 pixels, with patches about half as large.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_block_7x7.py
"""

import dataclasses
from pathlib import Path

from fgr_jax.sweep.plan import Row, Search, Sweep, load

_IMAGES = {"data.resize": 256, "data.crop": 224}
_PATCH_SIZE = "diversification.patch_size"
_SMALLER = {3: 2, 7: 3}


def _on_small_maps(row: Row) -> Row:
    size = row.overrides.get(_PATCH_SIZE)
    if not isinstance(size, int):  # without the block
        return row.with_overrides({**_IMAGES, "network.pool": 7})
    name = row.name.replace(f"G = {size}", f"G = {_SMALLER[size]}")
    return Row(name, {**row.overrides, **_IMAGES, _PATCH_SIZE: _SMALLER[size]})


def get_sweep() -> Sweep:
    large = load(Path(__file__).with_name("birds_block.py"))
    return dataclasses.replace(
        large,
        title="The block's parameters on maps of 7×7 cells, with GCE",
        rows=[_on_small_maps(row) for row in large.rows],
        search=Search("optimizer.learning_rate", (0.1, 0.3, 1.0)),
    )

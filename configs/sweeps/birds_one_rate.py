"""The ingredients of birds_recipe.py where the classifier has the learning rate of the stage.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_one_rate.py
"""

import dataclasses
from pathlib import Path

from fgr_jax.sweep.plan import Row, Search, Sweep, load

_FACTOR = "optimizer.head_factor"


def get_sweep() -> Sweep:
    recipe = load(Path(__file__).with_name("birds_recipe.py"))
    plain, _, *others = recipe.rows
    rows = [
        Row(row.name, {field: value for field, value in row.overrides.items() if field != _FACTOR})
        for row in others
    ]
    factor = Row("+ learning rate of the head × 3", {**plain.overrides, _FACTOR: 3.0})
    return dataclasses.replace(
        recipe,
        title="Birds: ingredients of a recipe, with one learning rate",
        rows=[plain, factor, *rows],
        search=Search("optimizer.learning_rate", (0.03, 0.1, 0.3)),
        baseline=plain.name,
    )

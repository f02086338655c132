"""AdamW, a learning rate for each stage and stochastic depth, where the last two stages are trained.

Otherwise as birds_recipe.py.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_adamw.py
"""

import dataclasses
from pathlib import Path

from fgr_jax.sweep.plan import Row, Search, Sweep, load


def get_sweep() -> Sweep:
    recipe = load(Path(__file__).with_name("birds_recipe.py"))
    plain, *_ = recipe.rows
    adamw = {
        **plain.overrides,
        "network.frozen": "blocks_4",
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.05,
    }
    rows: dict[str, dict[str, object]] = {
        "AdamW": {},
        "learning rate of the head × 10": {"optimizer.head_factor": 10.0},
        "learning rate of the head × 10, of each stage × 0.7": {
            "optimizer.head_factor": 10.0,
            "optimizer.layer_decay": 0.7,
        },
        "learning rate of the head × 10, stochastic depth": {
            "optimizer.head_factor": 10.0,
            "network.drop_path": 0.2,
        },
    }
    return dataclasses.replace(
        recipe,
        title="Birds: AdamW, where the last two stages are trained",
        rows=[Row(name, {**adamw, **more}) for name, more in rows.items()],
        search=Search("optimizer.learning_rate", (0.0003, 0.001, 0.003)),
        baseline="AdamW",
    )

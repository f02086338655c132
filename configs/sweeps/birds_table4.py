"""The rows of table 4 on frozen features of CUB's birds, as maps of 14×14 cells.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_table4.py
"""

import dataclasses
from pathlib import Path

from fgr_jax.sweep.plan import Search, Sweep, load


def get_sweep() -> Sweep:
    return dataclasses.replace(
        load(Path(__file__).with_name("table4.py")),
        title="Table 4 on frozen features of birds",
        config="configs/birds.py",
        seeds=5,
        search=Search("optimizer.learning_rate", (0.1, 0.3, 1.0, 3.0)),
        baseline="the network alone",
    )

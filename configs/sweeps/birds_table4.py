"""Tables 4 and 5 on frozen features of CUB's birds, as maps of 14×14 cells.

Rows without the block need the average of the features only. The rows "block" and "the network alone"
are table 5's α = 0.1 and α = 1. Center loss is left out: it moves features, and these are frozen.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_table4.py
"""

from pathlib import Path

from fgr_jax.sweep.plan import Row, Search, Sweep, load

_SHORT = dict.fromkeys(("duration", "evaluate_every", "checkpoint_every"), "10 epochs")
_POOLED = {"network.pool": 14}
_ALPHA = "diversification.alpha"


def get_sweep() -> Sweep:
    rows = [
        row.with_overrides(_POOLED if row.overrides.get(_ALPHA) == 1 else {})
        for row in load(Path(__file__).with_name("table4.py")).rows
        if "loss.center" not in row.overrides
    ]
    alphas = [
        Row(f"block, α = {alpha:g}", {"loss.gce_start": "never", _ALPHA: alpha}, paper)
        for alpha, paper in ((0.0, 86.2), (0.2, 85.8), (0.5, None))
    ]
    return Sweep(
        title="Tables 4 and 5 on frozen features of birds",
        config="configs/birds.py",
        rows=[row.with_overrides(_SHORT) for row in (*rows, *alphas)],
        seeds=5,
        search=Search("optimizer.learning_rate", (0.3, 1.0, 3.0, 10.0)),
        baseline="the network alone",
    )

"""Figure 5 on frozen features of CUB's birds: test error over the epochs, without the block.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_figure5.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep


def get_sweep() -> Sweep:
    for_all = {
        "network.pool": 14,
        "diversification.alpha": 1.0,
        "optimizer.schedule": "step",
        "evaluate_every": "1 epochs",
    }
    rows = [Row("cross-entropy", {"loss.gce_start": "never"}), Row("GCE", {})]
    return Sweep(
        title="Figure 5 on frozen features of birds: test error over the epochs",
        config="configs/birds.py",
        rows=[row.with_overrides(for_all) for row in rows],
        seeds=5,
        figure="curves",
        search=Search("optimizer.learning_rate", (0.03, 0.1, 0.3, 1.0)),
        baseline="cross-entropy",
    )

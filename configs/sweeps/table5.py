"""Table 5 of the paper: α, the factor on suppressed cells, with cross-entropy.

python -m fgr_jax.sweep --sweep=configs/sweeps/table5.py
"""

from fgr_jax.sweep.plan import Row, Sweep

_PAPER = {0.0: 86.2, 0.1: 86.3, 0.2: 85.8, 1.0: 85.5}


def get_sweep() -> Sweep:
    return Sweep(
        title="Table 5: the suppression factor α",
        config="configs/cub.py",
        rows=[
            Row(
                f"α = {alpha:g}",
                {"loss.gce_start": "never", "diversification.alpha": alpha},
                paper=_PAPER.get(alpha),
                x=alpha,
            )
            for alpha in (0.0, 0.1, 0.2, 0.5, 1.0)
        ],
        figure="line",
        x_label="α (1: without the block)",
    )

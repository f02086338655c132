"""Figure 5 of the paper: test error over the epochs, with and without the block and GCE.

python -m fgr_jax.sweep --sweep=configs/sweeps/figure5.py
"""

from fgr_jax.sweep.plan import Row, Sweep


def get_sweep() -> Sweep:
    return Sweep(
        title="Figure 5: test error over the epochs",
        config="configs/cub.py",
        rows=[
            Row(
                "cross-entropy",
                {"loss.gce_start": "never", "diversification.alpha": 1.0},
                paper=85.5,
            ),
            Row("block + GCE", {}, paper=87.7),
        ],
        figure="curves",
    )

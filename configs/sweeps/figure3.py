"""Figure 3 of the paper: k, the number of hardest negatives in GCE.

python -m fgr_jax.sweep --sweep=configs/sweeps/figure3.py

With k ≥ classes − 1, GCE is cross-entropy: figure3_quickstart.py is for the quickstart's eight classes.
"""

from fgr_jax.sweep.plan import Row, Sweep


def get_sweep() -> Sweep:
    return Sweep(
        title="Figure 3: the number k of hardest negatives",
        config="configs/cub.py",
        rows=[
            *(Row(f"k = {k}", {"loss.k": k}, x=k) for k in (1, 2, 3, 5, 10, 15, 25, 50, 100)),
            Row("cross-entropy", {"loss.gce_start": "never"}),
        ],
        figure="line",
        x_label="k",
        log_x=True,
    )

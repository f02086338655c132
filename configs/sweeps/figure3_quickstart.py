"""Figure 3 of the paper on the quickstart's eight classes: k, the number of hardest negatives in GCE.

python -m fgr_jax.sweep --sweep=configs/sweeps/figure3_quickstart.py

With eight classes there are seven negatives: from k = 7 on, GCE is cross-entropy.
"""

from fgr_jax.sweep.plan import Row, Sweep


def get_sweep() -> Sweep:
    return Sweep(
        title="Figure 3 with eight classes: the number k of hardest negatives",
        config="configs/quickstart_scratch.py",
        rows=[
            *(Row(f"k = {k}", {"loss.k": k}, x=k) for k in (1, 2, 3, 5)),
            Row("cross-entropy, as k = 7", {"loss.gce_start": "never"}, x=7),
        ],
        figure="line",
        x_label="k",
    )

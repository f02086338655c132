"""Table 4 of the paper: the block, GCE and the losses that it is compared with.

python -m fgr_jax.sweep --sweep=configs/sweeps/table4.py
"""

from fgr_jax.sweep.plan import Row, Sweep

_PLAIN = {"loss.gce_start": "never"}
_WITHOUT_BLOCK = {"diversification.alpha": 1.0}


def get_sweep() -> Sweep:
    return Sweep(
        title="Table 4: the block and several losses",
        config="configs/cub.py",
        rows=[
            Row("the network alone", {**_PLAIN, **_WITHOUT_BLOCK}, paper=85.5),
            Row("block", _PLAIN, paper=86.3),
            Row("block + center loss", {**_PLAIN, "loss.center": 0.003}, paper=86.4),
            Row("block + LGM", {**_PLAIN, "loss.lgm": 0.1}, paper=86.5),
            Row("block + MaxEnt", {**_PLAIN, "loss.max_entropy": 1.0}, paper=86.2),
            Row("block + GCE", {}, paper=87.7),
            # Not in the paper.
            Row("GCE without the block", _WITHOUT_BLOCK),
            Row("block + label smoothing", {**_PLAIN, "loss.label_smoothing": 0.1}),
        ],
    )

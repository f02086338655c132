"""Table 4 of the paper on frozen features of CUB's birds, as maps of 14×14 cells.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_table4.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep

_PLAIN = {"loss.gce_start": "never"}
_WITHOUT_BLOCK = {"diversification.alpha": 1.0}


def get_sweep() -> Sweep:
    return Sweep(
        title="Table 4 on frozen features of birds",
        config="configs/birds.py",
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
        seeds=5,
        search=Search("optimizer.learning_rate", (0.1, 0.3, 1.0, 3.0)),
        baseline="the network alone",
    )

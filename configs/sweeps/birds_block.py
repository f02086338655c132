"""A gentler block with GCE, on frozen features of CUB's birds as maps of 14×14 cells.

birds_table4.py has the block with its default parameters on these maps, birds_block_7x7.py all
combinations of its parameters on smaller ones.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_block.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep


def get_sweep() -> Sweep:
    rows = [
        Row("GCE without the block", {"diversification.alpha": 1.0, "network.pool": 14}),
        Row("peaks alone", {"diversification.p_patch": 0.0}),
        Row("p_patch 0.1", {"diversification.p_patch": 0.1}),
        Row(
            "p_patch 0.1, G = 7", {"diversification.p_patch": 0.1, "diversification.patch_size": 7}
        ),
    ]
    return Sweep(
        title="A gentler block on frozen features of birds, with GCE",
        config="configs/birds.py",
        rows=[row.with_overrides({"duration": "10 epochs"}) for row in rows],
        seeds=3,
        search=Search("optimizer.learning_rate", (0.3, 1.0, 3.0)),
        baseline="GCE without the block",
    )

"""The block's p_peak, p_patch and G with GCE, on frozen features of CUB's birds as maps of 7×7 cells.

A cell of these maps, of images of 224×224 pixels, covers four of the 14×14 cells that images of 448×448
pixels have. So patches have two or three cells on a side.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_block_7x7.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep

_FOR_ALL = {"duration": "10 epochs", "data.resize": 256, "data.crop": 224}


def _row(p_peak: float, p_patch: float, patch_size: int) -> Row:
    return Row(
        f"p_peak {p_peak:g}, p_patch {p_patch:g}, G = {patch_size}",
        {
            "diversification.p_peak": p_peak,
            "diversification.p_patch": p_patch,
            "diversification.patch_size": patch_size,
        },
    )


def get_sweep() -> Sweep:
    rows = [
        Row("GCE without the block", {"diversification.alpha": 1.0, "network.pool": 7}),
        _row(0.5, 0.0, 2),
        *(
            _row(p_peak, p_patch, patch_size)
            for patch_size in (2, 3)
            for p_peak in (0.0, 0.5)
            for p_patch in (0.1, 0.3, 0.5)
        ),
    ]
    return Sweep(
        title="The block's parameters on maps of 7×7 cells, with GCE",
        config="configs/birds.py",
        rows=[row.with_overrides(_FOR_ALL) for row in rows],
        seeds=3,
        search=Search("optimizer.learning_rate", (0.1, 0.3, 1.0)),
        baseline="GCE without the block",
    )

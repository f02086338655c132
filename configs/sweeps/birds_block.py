"""The block's p_peak, p_patch and G with GCE, on frozen features of CUB's birds.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_block.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep


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
        Row("GCE without the block", {"diversification.alpha": 1.0, "network.pool": 14}),
        _row(0.5, 0.0, 3),
        *(
            _row(p_peak, p_patch, patch_size)
            for patch_size in (3, 7)
            for p_peak in (0.0, 0.5)
            for p_patch in (0.1, 0.3, 0.5)
        ),
    ]
    return Sweep(
        title="The block's parameters on frozen features of birds, with GCE",
        config="configs/birds.py",
        rows=[row.with_overrides({"duration": "10 epochs"}) for row in rows],
        seeds=3,
        search=Search("optimizer.learning_rate", (1.0, 3.0, 10.0)),
        baseline="GCE without the block",
    )

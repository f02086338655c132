"""The block and GCE where the last stage of the network is trained, too, on maps of 14×14 cells.

What comes before that stage is frozen and computed once, for two views of each image.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_last_stage.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep

_PLAIN = {"loss.gce_start": "never"}
_WITHOUT_BLOCK = {"diversification.alpha": 1.0}
_GENTLE = {"diversification.p_patch": 0.1}


def get_sweep() -> Sweep:
    for_all = {
        "duration": "8 epochs",
        "network.frozen": "blocks_5",
        "data.views": 2,
        # The classifier starts from random weights and wants a far higher rate than the stage.
        "optimizer.head_factor": 30.0,
    }
    rows = [
        Row("the network alone", {**_PLAIN, **_WITHOUT_BLOCK}),
        Row("block", _PLAIN),
        Row("block, p_patch 0.1", {**_PLAIN, **_GENTLE}),
        Row("GCE without the block", _WITHOUT_BLOCK),
        Row("block + GCE", {}),
        Row("block, p_patch 0.1, + GCE", _GENTLE),
    ]
    return Sweep(
        title="Birds: the last stage is trained",
        config="configs/birds.py",
        rows=[row.with_overrides(for_all) for row in rows],
        seeds=2,
        search=Search("optimizer.learning_rate", (0.01, 0.03, 0.1)),
        baseline="the network alone",
    )

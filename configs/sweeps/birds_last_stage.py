"""The block and GCE where the last stage of the network is trained, too, on maps of 7×7 cells.

What comes before that stage is frozen and computed once, for two views of each image.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_last_stage.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep

_PLAIN = {"loss.gce_start": "never"}
_WITHOUT_BLOCK = {"diversification.alpha": 1.0}


def get_sweep() -> Sweep:
    for_all = {
        "duration": "5 epochs",
        "data.views": 2,
        "data.resize": 256,
        "data.crop": 224,
        "network.frozen": "blocks_5",
        "diversification.patch_size": 2,
        "optimizer.weight_decay": 5e-4,
    }
    rows = [
        Row("the network alone", {**_PLAIN, **_WITHOUT_BLOCK}),
        Row("block", _PLAIN),
        Row("GCE without the block", _WITHOUT_BLOCK),
        Row("block + GCE", {}),
        Row("block, p_patch 0.1, + GCE", {"diversification.p_patch": 0.1}),
    ]
    return Sweep(
        title="Birds: the last stage is trained",
        config="configs/birds.py",
        rows=[row.with_overrides({**for_all, **row.overrides}) for row in rows],
        seeds=2,
        search=Search("optimizer.learning_rate", (0.1, 0.3)),
        baseline="the network alone",
    )

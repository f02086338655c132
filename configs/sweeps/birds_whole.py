"""The block and GCE where the whole network is trained, on images of the paper's size: for a GPU.

30 epochs of EfficientNet-Lite0 at 448×448 pixels. docs/launching.md tells how the data set gets to a
machine without a network.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_whole.py
"""

from fgr_jax.sweep.plan import Row, Sweep

_PLAIN = {"loss.gce_start": "never"}
_WITHOUT_BLOCK = {"diversification.alpha": 1.0}


def get_sweep() -> Sweep:
    for_all = {
        "duration": "30 epochs",
        "evaluate_every": "10 epochs",
        "checkpoint_every": "10 epochs",
        "data.views": 0,
        "network.frozen": "",
        "network.compute_dtype": "bfloat16",
        "optimizer.learning_rate": 0.03,
        "optimizer.weight_decay": 5e-4,
        "optimizer.warmup": "2 epochs",
    }
    rows = [
        Row("the network alone", {**_PLAIN, **_WITHOUT_BLOCK}),
        Row("block", _PLAIN),
        Row("GCE without the block", _WITHOUT_BLOCK),
        Row("block + GCE", {}),
        Row("block, p_patch 0.1, + GCE", {"diversification.p_patch": 0.1}),
    ]
    return Sweep(
        title="Birds: the whole network is trained",
        config="configs/birds.py",
        rows=[row.with_overrides(for_all) for row in rows],
        seeds=1,
        baseline="the network alone",
    )

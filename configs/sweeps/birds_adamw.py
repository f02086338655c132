"""AdamW and a learning rate for each stage, where the last stage of the network is trained.

224×224 pixels, maps of 7×7 cells, GCE without the block.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_adamw.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep


def get_sweep() -> Sweep:
    for_all = {
        **dict.fromkeys(("duration", "evaluate_every", "checkpoint_every"), "6 epochs"),
        "data.resize": 256,
        "data.crop": 224,
        "data.views": 4,
        "network.frozen": "blocks_5",
        "diversification.alpha": 1.0,
        "optimizer.name": "adamw",
        "optimizer.weight_decay": 0.05,
    }
    rows = [
        Row("AdamW", {}),
        Row("learning rate of the head × 10", {"optimizer.head_factor": 10.0}),
        Row(
            "learning rate of the head × 10, of each stage × 0.7",
            {"optimizer.head_factor": 10.0, "optimizer.layer_decay": 0.7},
        ),
    ]
    return Sweep(
        title="Birds: AdamW, where the last stage is trained",
        config="configs/birds.py",
        rows=[row.with_overrides(for_all) for row in rows],
        seeds=2,
        search=Search("optimizer.learning_rate", (0.0003, 0.001, 0.003)),
        baseline="AdamW",
    )

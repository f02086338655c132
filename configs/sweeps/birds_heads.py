"""The heads of other systems on frozen features of birds at 224×224 pixels, maps of 7×7 cells.

The network alone needs the average of the features only. DFL-CNN has its filters on the last stage's
features, since those of the stage before are not kept.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_heads.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep

_FOR_ALL = {
    **dict.fromkeys(("duration", "evaluate_every", "checkpoint_every"), "10 epochs"),
    "data.resize": 256,
    "data.crop": 224,
}
_CROSS_ENTROPY = {"loss.gce_start": "never"}
_PAIRS = {"mamc_pooled": {"data.pairs": True}}
_HEADS = {
    "B-CNN": "bcnn",
    "iSQRT-COV": "isqrt_cov",
    "Deep-TEN": "deep_ten",
    "DEP": "dep",
    "DFL-CNN": "dfl_cnn",
    "MAMC, pooled": "mamc_pooled",
}


def get_sweep() -> Sweep:
    alone = {**_CROSS_ENTROPY, "diversification.alpha": 1.0, "network.pool": 7}
    rows = [
        Row("the network alone", alone),
        Row("block + GCE", {"diversification.fit_to_maps": True}),
        *(
            Row(f"{name}{loss}", {"network.head": head, **_PAIRS.get(head, {}), **overrides})
            for name, head in _HEADS.items()
            for loss, overrides in (("", _CROSS_ENTROPY), (" + GCE", {}))
        ),
    ]
    return Sweep(
        title="Heads of other systems on frozen features of birds",
        config="configs/birds.py",
        rows=[row.with_overrides(_FOR_ALL) for row in rows],
        search=Search("optimizer.learning_rate", (0.03, 0.1, 0.3, 1.0)),
        baseline="the network alone",
    )

"""The heads of other systems on frozen features of birds at 224×224 pixels, maps of 7×7 cells.

Each has a factor on the learning rates that are searched: vectors of norm 1, for one, want far higher
rates than others. The network alone needs the average of the features only. DFL-CNN has its filters on
the last stage's features, since those of the stage before are not kept.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_heads.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep

_FOR_ALL = {
    **dict.fromkeys(("duration", "evaluate_every", "checkpoint_every"), "5 epochs"),
    "data.resize": 256,
    "data.crop": 224,
}
_CROSS_ENTROPY = {"loss.gce_start": "never"}
_FACTOR = "optimizer.head_factor"
_HEADS: dict[str, dict[str, object]] = {
    "Deep-TEN": {"network.head": "deep_ten", _FACTOR: 100.0},
    "DEP": {"network.head": "dep", _FACTOR: 0.1},
    "MAMC, pooled, batches of 16": {
        "network.head": "mamc_pooled",
        "data.pairs": True,
        # The constraint is a sum over pairs: the larger the batch, the less is left of cross-entropy.
        "batch_size": 16,
        _FACTOR: 0.03,
    },
    "B-CNN": {"network.head": "bcnn", _FACTOR: 100.0},
    "DFL-CNN": {"network.head": "dfl_cnn", "network.head_from_features": True},
    "iSQRT-COV": {"network.head": "isqrt_cov"},
}


def get_sweep() -> Sweep:
    alone = {"diversification.alpha": 1.0, "network.pool": 7, _FACTOR: 3.0}
    rows = [
        Row("the network alone", {**_CROSS_ENTROPY, **alone}),
        Row("GCE", alone),
        Row("block + GCE", {"diversification.fit_to_maps": True, _FACTOR: 3.0}),
        *(Row(name, {**_CROSS_ENTROPY, **head}) for name, head in _HEADS.items()),
    ]
    return Sweep(
        title="Heads of other systems on frozen features of birds",
        config="configs/birds.py",
        rows=[row.with_overrides(_FOR_ALL) for row in rows],
        search=Search("optimizer.learning_rate", (0.03, 0.1, 0.3)),
        baseline="the network alone",
    )

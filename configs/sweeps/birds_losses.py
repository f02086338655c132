"""The losses without the block, and the number k of hardest negatives, on frozen features of birds.

Without the block, scores depend on the average of the features alone, which is all that is kept.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_losses.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep

_PLAIN = {"loss.gce_start": "never"}


def get_sweep() -> Sweep:
    rows = [
        Row("cross-entropy", _PLAIN),
        *(Row(f"GCE, k = {k}", {"loss.k": k}) for k in (1, 2, 5, 10, 15, 30, 60)),
        Row("GCE, k = 15, after half of the epochs", {"loss.gce_start": "10 epochs"}),
        Row(
            "GCE, k = 15, gradually in half of the epochs",
            {"loss.gce_fade": "10 epochs"},
        ),
        Row("label smoothing", {**_PLAIN, "loss.label_smoothing": 0.1}),
        Row("GCE, k = 15, with label smoothing", {"loss.label_smoothing": 0.1}),
        Row("center loss", {**_PLAIN, "loss.center": 0.003}),
        Row("L-GM", {**_PLAIN, "loss.lgm": 0.1}),
        Row("MaxEnt", {**_PLAIN, "loss.max_entropy": 1.0}),
        Row("pairwise confusion", {**_PLAIN, "loss.pairwise_confusion": 10.0}),
    ]
    for_all = {"network.pool": 14, "diversification.alpha": 1.0}
    return Sweep(
        title="Losses on frozen features of birds, without the block",
        config="configs/birds.py",
        rows=[row.with_overrides(for_all) for row in rows],
        seeds=5,
        search=Search("optimizer.learning_rate", (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)),
        baseline="cross-entropy",
    )

"""Each ingredient of docs/modern.md that goes with cached features, where the last stage is trained.

160×160 pixels, maps of 5×5 cells, no block. That stage has no residual branches: stochastic depth is in
birds_adamw.py, which trains one stage more.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_recipe.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep


def get_sweep() -> Sweep:
    for_all = {
        "duration": "6 epochs",
        "data.resize": 182,
        "data.crop": 160,
        "data.views": 4,
        "network.frozen": "blocks_5",
        "diversification.alpha": 1.0,
        "optimizer.weight_decay": 5e-4,
    }
    factor = {"optimizer.head_factor": 30.0}
    rows = [
        Row("GCE, momentum SGD, one learning rate", {}),
        Row("learning rate of the head × 30", factor),
        Row("+ Nesterov", {**factor, "optimizer.nesterov": True}),
        Row(
            "+ no decay of norms and biases", {**factor, "optimizer.decay_norms_and_biases": False}
        ),
        Row("+ clipping at 1", {**factor, "optimizer.clip_norm": 1.0}),
        Row("+ average of the weights", {**factor, "optimizer.average": 0.995}),
        Row("+ label smoothing", {**factor, "loss.label_smoothing": 0.1}),
        Row("+ BatchNorm over groups of 8", {**factor, "network.norm_group": 8}),
        Row("+ 4 parts of 16", {**factor, "optimizer.accumulate": 4}),
        Row("+ warm-up", {**factor, "optimizer.warmup": "1 epochs"}),
    ]
    return Sweep(
        title="Birds: ingredients of a recipe, where the last stage is trained",
        config="configs/birds.py",
        rows=[row.with_overrides({**for_all, **row.overrides}) for row in rows],
        seeds=2,
        search=Search("optimizer.learning_rate", (0.01, 0.03, 0.1)),
        baseline="learning rate of the head × 30",
    )

"""What changes the images of training, one at a time, where the last stage is trained.

The rest of the network is frozen, but applied to new images in every step. 128×128 pixels, maps of 4×4
cells, no block, and the learning rate that is the best in birds_recipe.py.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_images.py
"""

from fgr_jax.sweep.plan import Row, Sweep

_PLAIN = {"loss.gce_start": "never"}


def get_sweep() -> Sweep:
    for_all = {
        "duration": "6 epochs",
        "data.views": 0,
        "data.resize": 146,
        "data.crop": 128,
        "network.frozen": "blocks_5",
        "diversification.alpha": 1.0,
        "optimizer.learning_rate": 0.1,
        "optimizer.weight_decay": 5e-4,
    }
    rows = [
        Row("crops and reflections", {}),
        Row("+ mixup, α = 0.2", {"data.mixup": 0.2}),
        Row("+ CutMix, α = 1", {"data.cutmix": 1.0}),
        Row("+ CutMix, α = 1, k = 60", {"data.cutmix": 1.0, "loss.k": 60}),
        Row("cross-entropy", _PLAIN),
        Row("+ CutMix, α = 1, cross-entropy", {**_PLAIN, "data.cutmix": 1.0}),
        Row("+ TrivialAugment", {"data.trivial_augment": True}),
        Row("resized with their proportions kept", {"data.resize_method": "crop"}),
        # In an image with sides of 4 to 3, the bird covers as many pixels as in the row before.
        Row("squashed, birds as large", {"data.resize": 169}),
    ]
    return Sweep(
        title="Birds: what changes the images, where the last stage is trained",
        config="configs/birds.py",
        rows=[row.with_overrides({**for_all, **row.overrides}) for row in rows],
        seeds=1,
        baseline="crops and reflections",
    )

"""configs/modern/cub.py beside configs/cub.py: the same weights, images and epochs, the whole network.

EfficientNet-Lite0 at 160×160 pixels, for six epochs; schedules are shortened alike.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_modern.py
"""

from pathlib import Path

from fgr_jax.config import Config, flat
from fgr_jax.files import python_files
from fgr_jax.sweep.plan import Row, Sweep


def _modern() -> dict[str, object]:
    """Returns what configs/modern/cub.py sets, but for the weights and the time."""
    path = Path(__file__).parent.parent / "modern" / "cub.py"
    config = python_files.load(path, "get_config", Config, flag="--config")
    defaults, ours = flat(Config()), ("pretrained", "duration")
    return {
        name: value
        for name, value in flat(config).items()
        if value != defaults[name] and name not in ours
    }


def get_sweep() -> Sweep:
    for_all = {
        "duration": "6 epochs",
        "pretrained": "efficientnet-lite0",
        "network.backbone": "tf_efficientnet_lite0",
        "network.frozen": "",
        "diversification.fit_to_maps": True,
        "data.views": 0,
        "data.resize": 182,
        "data.crop": 160,
        "optimizer.schedule": "step",
        "optimizer.decay_every": "3 epochs",
        "optimizer.learning_rate": 0.001,
        "batch_size": 16,
    }
    modern = {**_modern(), "optimizer.warmup": "0.3 epochs"}
    # The second row's rate per image.
    higher = {"optimizer.learning_rate": 0.04}
    squashed = {"data.resize_method": "squash"}
    rows = [
        Row("configs/cub.py", {}),
        Row("configs/cub.py, its learning rate × 10", {"optimizer.learning_rate": 0.01}),
        Row("configs/modern/cub.py, its learning rate × 4", {**modern, **higher}),
        Row("configs/modern/cub.py", modern),
        Row(
            "configs/modern/cub.py, images squashed to squares, learning rate × 4",
            {**modern, **squashed, **higher},
        ),
        Row(
            "configs/modern/cub.py, images squashed to squares, learning rate of the head × 10",
            {**modern, **squashed, "optimizer.head_factor": 10.0},
        ),
    ]
    return Sweep(
        title="Birds: today's recipe and the paper's",
        config="configs/birds.py",
        rows=[row.with_overrides({**for_all, **row.overrides}) for row in rows],
        seeds=1,
        baseline="configs/cub.py",
    )

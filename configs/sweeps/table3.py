"""Table 3 of the paper: texture networks, here with the backbone, images and steps of the paper's own.

Published figures have backbones, resolutions and epochs of their own.

python -m fgr_jax.sweep --sweep=configs/sweeps/table3.py
"""

from fgr_jax.sweep.plan import Row, Sweep

_CROSS_ENTROPY = {"loss.gce_start": "never"}


def get_sweep() -> Sweep:
    systems = {
        "B-CNN": ("bcnn", "75.4 (ResNet-18, 224×224)"),
        "Deep-TEN": ("deep_ten", "76.1 (ResNet-18, 224×224)"),
        "DEP": ("dep", "82.2 (ResNet-18, 224×224)"),
    }
    return Sweep(
        title="Table 3: texture networks on the same backbone",
        config="configs/gtos_mobile.py",
        rows=[
            Row("the network alone", {**_CROSS_ENTROPY, "diversification.alpha": 1.0}),
            Row("block + GCE", {}),
            *(
                Row(name, {**_CROSS_ENTROPY, "network.head": head}, published=published)
                for name, (head, published) in systems.items()
            ),
            # Not in the table.
            *(Row(f"{name} + GCE", {"network.head": head}) for name, (head, _) in systems.items()),
        ],
        baseline="the network alone",
    )

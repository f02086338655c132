"""Systems that look at parts of the images again, with a frozen backbone, on birds at 160×160 pixels.

The backbone is applied to the images and their parts in every step, so that little of an epoch is saved.
Each has a factor on the learning rates that are searched: NTS-Net diverges at rates that others want.

python -m fgr_jax.sweep --sweep=configs/sweeps/birds_looking_again.py
"""

from fgr_jax.sweep.plan import Row, Search, Sweep

_FOR_ALL = {
    **dict.fromkeys(("duration", "evaluate_every", "checkpoint_every"), "3 epochs"),
    "data.views": 0,
    "data.resize": 182,
    "data.crop": 160,
    "loss.gce_start": "never",
    "diversification.alpha": 1.0,
}
_FACTOR = "optimizer.head_factor"


def get_sweep() -> Sweep:
    rows = [
        Row("the network alone", {_FACTOR: 0.3}),
        Row("NTS-Net", {"network.head": "nts", _FACTOR: 0.05}),
        Row("TASN", {"network.head": "tasn", _FACTOR: 0.3}),
    ]
    return Sweep(
        title="Systems that look again, with a frozen backbone, on birds",
        config="configs/birds.py",
        rows=[row.with_overrides(_FOR_ALL) for row in rows],
        search=Search("optimizer.learning_rate", (0.3, 1.0)),
        baseline="the network alone",
    )

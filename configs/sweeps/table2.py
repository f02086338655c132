"""Table 2 of the paper: other systems, here with the backbone, images and steps of the paper's own.

Published figures have backbones, resolutions and epochs of their own.

python -m fgr_jax.sweep --sweep=configs/sweeps/table2.py
"""

from fgr_jax.sweep.plan import Row, Sweep

_CROSS_ENTROPY = {"loss.gce_start": "never"}
_DFL_CNN = {"network.head": "dfl_cnn", "network.head_from_features": True}


def get_sweep() -> Sweep:
    return Sweep(
        title="Table 2: other systems on the same backbone",
        config="configs/cub.py",
        rows=[
            Row(
                "the network alone",
                {**_CROSS_ENTROPY, "diversification.alpha": 1.0},
                paper=85.5,
            ),
            Row("block + GCE", {}, paper=87.7),
            Row(
                "iSQRT-COV",
                {**_CROSS_ENTROPY, "network.head": "isqrt_cov"},
                published="88.1 (ResNet-50, 448×448)",
            ),
            Row(
                "DFL-CNN",
                {**_CROSS_ENTROPY, **_DFL_CNN},
                published="87.4 (ResNet-50, 448×448)",
            ),
            Row(
                "MAMC",
                {**_CROSS_ENTROPY, "network.head": "mamc", "data.pairs": True},
                published="86.3 (ResNet-50, 448×448)",
            ),
            Row(
                "NTS-Net",
                {**_CROSS_ENTROPY, "network.head": "nts"},
                published="87.5 (ResNet-50, 448×448)",
            ),
            Row(
                "TASN",
                {**_CROSS_ENTROPY, "network.head": "tasn"},
                published="87.6 (ResNet-50, 448×448)",
            ),
            # Not in the table.
            Row(
                "MAMC, pooled",
                {**_CROSS_ENTROPY, "network.head": "mamc_pooled", "data.pairs": True},
            ),
            Row("B-CNN", {**_CROSS_ENTROPY, "network.head": "bcnn"}),
            Row("iSQRT-COV + GCE", {"network.head": "isqrt_cov"}),
            Row("DFL-CNN + GCE", _DFL_CNN),
            Row("B-CNN + GCE", {"network.head": "bcnn"}),
        ],
        not_run={
            "RACNN": "85.3 (VGG-19, 448×448): three networks that zoom in, trained in turns with the "
            "boxes between them",
            "MACNN": "86.5 (VGG-19, 448×448): channels are clustered first, and parts and their "
            "classifiers are then trained in turns",
            "RAM": "86.0 (ResNet-50, 448×448): a recurrent network that is trained by reinforcement",
        },
        baseline="the network alone",
    )

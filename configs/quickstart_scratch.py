"""The quickstart's solar cells with a small network from random weights, with finer maps.

python -m fgr_jax.main --config=configs/quickstart_scratch.py
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.batch_size = 16
    config.duration = "26 epochs"
    config.evaluate_every = "2 epochs"
    config.checkpoint_every = "2 epochs"

    config.data.name = "elpv/eight"
    config.data.resize = 128
    config.data.crop = 128
    config.data.augmentation = "dihedral"  # cells have no natural orientation

    # A quarter of the width, and no stride in the last stage: maps of 8×8 cells from 128 pixels.
    config.network.depth = 18
    config.network.width = 0.25
    config.network.last_stride = 1

    # From scratch: a higher learning rate than for pretrained weights.
    config.optimizer.learning_rate = 0.05
    config.optimizer.weight_decay = 5e-4
    config.optimizer.warmup = "2 epochs"
    config.optimizer.schedule = "cosine"

    # Cross-entropy while the network finds its features, then GCE over 3 of the 7 negatives.
    config.loss.k = 3
    config.loss.gce_start = "10 epochs"

    # Smaller and fewer patches than on 14×14 maps, where a patch covers less of the object.
    config.diversification.patch_size = 2
    config.diversification.p_patch = 0.1
    return config

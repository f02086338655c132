"""Solar cells with faint cracks (ELPV), in a few minutes on two CPU cores.

python -m fgr_jax.main --config=configs/quickstart.py
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.batch_size = 32
    config.duration = "16 epochs"

    config.data.name = "elpv/eight"
    config.data.resize = 112
    config.data.crop = 112
    config.data.augmentation = "dihedral"  # a cell has no up and no left

    # Half as wide, and the last stage not strided: 7×7 map cells from 112 pixels.
    config.network.depth = 18
    config.network.width = 0.5
    config.network.last_stride = 1

    # From scratch: a higher learning rate than for pretrained weights.
    config.optimizer.learning_rate = 0.1
    config.optimizer.weight_decay = 5e-4
    config.optimizer.warmup = "2 epochs"
    config.optimizer.schedule = "cosine"

    # Cross-entropy while the network finds its features, then GCE over 3 of the 7 negatives.
    config.loss.k = 3
    config.loss.gce_start = "5 epochs"

    config.diversification.patch_size = 2
    config.diversification.p_patch = 0.2
    return config

"""Solar cells with faint cracks (ELPV), from ImageNet weights, in a few minutes on two CPU cores.

python -m fgr_jax.main --config=configs/quickstart.py
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.batch_size = 16
    config.duration = "12 epochs"
    config.evaluate_every = "2 epochs"
    config.checkpoint_every = "2 epochs"
    config.pretrained = "efficientnet-lite0"  # in a package: there is nothing to download

    config.data.name = "elpv/eight"
    config.data.resize = 128
    config.data.crop = 128
    config.data.augmentation = "dihedral"  # cells have no natural orientation

    config.network.backbone = "tf_efficientnet_lite0"

    config.optimizer.learning_rate = 0.03
    config.optimizer.weight_decay = 5e-4
    config.optimizer.warmup = "1 epoch"
    config.optimizer.schedule = "cosine"

    config.loss.k = 3  # of the 7 negatives

    # Smaller and fewer patches than on 14×14 maps: these have 4×4 cells.
    config.diversification.patch_size = 2
    config.diversification.p_patch = 0.1
    return config

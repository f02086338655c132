"""Your own images, a folder for each class; see "Your own images" in the README.

python -m fgr_jax.main --config=configs/folder.py --config.data.folder=PATH --workdir=runs/mine
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.data.name = "folder"
    config.duration = "30 epochs"
    config.data.resize = 256
    config.data.crop = 224
    config.pretrained = "timm/resnet50.tv_in1k"  # torchvision's IMAGENET1K_V1
    # Maps of 14×14 cells from 224 pixels, as the paper has them from 448.
    config.network.last_stride = 1
    config.optimizer.decay_every = "15 epochs"
    return config

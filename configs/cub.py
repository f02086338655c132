"""CUB-200-2011 by the paper's recipe (§4.2), which is the default of every field not set here.

python -m fgr_jax.prepare --config=configs/cub.py
python -m fgr_jax.main --config=configs/cub.py --workdir=runs/cub
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.data.name = "cub"
    config.pretrained = "timm/resnet50.tv_in1k"  # torchvision's IMAGENET1K_V1
    return config

"""GTOS-mobile by the paper's recipe (§4.2), which is the default of every field not set here.

python -m fgr_jax.prepare --config=configs/gtos_mobile.py
python -m fgr_jax.main --config=configs/gtos_mobile.py --workdir=runs/gtos_mobile
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.data.name = "gtos_mobile"
    config.pretrained = "timm/resnet50.tv_in1k"  # torchvision's IMAGENET1K_V1
    return config

"""Stanford Cars by the paper's recipe (§4.2), which is the default of every field not set here.

python -m fgr_jax.prepare --config=configs/cars.py
python -m fgr_jax.main --config=configs/cars.py --workdir=runs/cars
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.data.name = "cars"
    config.pretrained = "timm/resnet50.tv_in1k"  # torchvision's IMAGENET1K_V1
    return config

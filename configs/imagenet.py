"""ImageNet by §4.6 of the paper: the recipe of He et al. (2016) from random weights, GCE from halfway.

The paper compares the loss alone, so the block is off here. He et al. cropped from images of random
sizes; here every image is resized to 256×256.

python -m fgr_jax.prepare --config=configs/imagenet.py --source=ILSVRC2012_img_train.tar \
    --source=ILSVRC2012_img_val.tar --source=ILSVRC2012_devkit_t12.tar.gz
python -m fgr_jax.main --config=configs/imagenet.py --workdir=runs/imagenet
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.batch_size = 256
    config.duration = "100 epochs"
    config.data.name = "imagenet"
    config.data.resize = 256
    config.data.crop = 224
    config.diversification.alpha = 1.0
    config.loss.gce_start = "50 epochs"
    config.optimizer.learning_rate = 0.1
    config.optimizer.decay_every = "30 epochs"
    return config

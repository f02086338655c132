"""CUB-200-2011 with block and GCE, and the recipe of today's ResNet-50 baselines (docs/modern.md).

The weights are those of configs/cub.py, so that the two can be compared.

python -m fgr_jax.main --config=configs/modern/cub.py --workdir=runs/cub_modern
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.batch_size = 64
    config.duration = "100 epochs"
    config.pretrained = "timm/resnet50.tv_in1k"  # torchvision's IMAGENET1K_V1
    config.data.name = "cub"
    config.data.resize_method = "crop"
    config.loss.label_smoothing = 0.1
    config.optimizer.learning_rate = 0.01
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_norms_and_biases = False
    config.optimizer.warmup = "5 epochs"
    config.optimizer.schedule = "cosine"
    return config

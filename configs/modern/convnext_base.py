"""CUB-200-2011 with block and GCE on ConvNeXt-B, fine-tuned with AdamW (docs/modern.md).

python -m fgr_jax.main --config=configs/modern/convnext_base.py --workdir=runs/cub_convnext
"""

from fgr_jax.config import Config


def get_config() -> Config:
    config = Config()
    config.batch_size = 64
    config.duration = "50 epochs"
    config.pretrained = "timm/convnext_base.fb_in22k_ft_in1k"
    config.data.name = "cub"
    config.data.resize_method = "crop"
    config.network.backbone = "convnext_base"
    config.network.drop_path = 0.2
    config.loss.label_smoothing = 0.1
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.layer_decay = 0.7
    config.optimizer.weight_decay = 0.05
    config.optimizer.decay_norms_and_biases = False
    config.optimizer.clip_norm = 1.0
    config.optimizer.average = 0.999
    config.optimizer.warmup = "5 epochs"
    config.optimizer.schedule = "cosine"
    return config

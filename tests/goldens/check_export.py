"""Checks that timm loads exported weights strictly and computes the same scores.

Run by hand where timm is installed beside the package's own environment; the tests do not need it:

    python -m venv timm && timm/bin/pip install timm==1.0.31 torch==2.13.0 torchvision==0.28.0 numpy
    PYTHONPATH=.:tests python tests/goldens/check_export.py export FOLDER
    timm/bin/python tests/goldens/check_export.py load FOLDER

The first command makes runs of one step with the recipe's weights, one of each kind of backbone, and
exports them with `fgr_jax.export`, in FOLDER. The second one loads them and prints the largest
differences of the scores, in float32 and float64. It takes two minutes on two cores and 1 GB.
"""

import functools
import sys
from pathlib import Path
from typing import Any

import numpy as np

# 112 is a multiple of both patch sizes, and not of the stride of the others.
SIDE, CLASSES, IMAGES = 112, 10, 4
_OF_VIT = {"img_size": SIDE, "global_pool": "avg", "fc_norm": False}
NAMES: dict[str, dict[str, Any]] = {  # and timm's arguments
    "resnet18": {},
    "resnet50": {},
    "convnext_tiny": {},
    "efficientnet_lite0": {},
    "tf_efficientnet_lite0": {},
    "tf_efficientnet_b0": {},
    "vit_small_patch16_224": _OF_VIT,
    "vit_small_patch14_dinov2": _OF_VIT,
    "vit_small_patch14_reg4_dinov2": _OF_VIT,
}
DTYPES = ("float32", "float64")


def export(name: str, folder: Path) -> None:
    """Writes NAME.safetensors, and images and scores to NAME.npz."""
    import jax
    from etils import epath
    from goldens import recipe

    from fgr_jax import config as config_lib
    from fgr_jax.config import Config
    from fgr_jax.data.identity import DataIdentity
    from fgr_jax.export import __main__ as export_command
    from fgr_jax.models.network import Network, build_network
    from fgr_jax.models.weights.table import from_tensors, to_tensors
    from fgr_jax.runs.checkpoints import Checkpoints
    from fgr_jax.runs.description import Description
    from fgr_jax.runs.workdir import Workdir

    config = Config()
    config.data.name, config.data.crop, config.network.backbone = "cub", SIDE, name
    network: Any = build_network(config, CLASSES)
    images = recipe.images(IMAGES, SIDE, SIDE)
    like = jax.eval_shape(
        lambda: network.init(jax.random.key(0), images.astype("float32"), train=False)
    )
    like = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), dict(like))
    shapes = {key: list(each.shape) for key, each in to_tensors(like, network.table).items()}
    variables = from_tensors(recipe.weights(shapes), like, network.table, name)

    workdir = Workdir.open(folder / name)
    classes = [f"class {index}" for index in range(CLASSES)]
    data = DataIdentity("tiny/1.0.0", "train", 1)
    workdir.claim(Description(config_lib.flat(config), data, classes))
    state = {"batch_stats": {}, **variables, "step": np.int32(1)}
    with Checkpoints(epath.Path(folder / name / "checkpoints")) as saved:
        saved.save(1, jax.tree.map(jax.numpy.asarray, state), top1=None)
    options = ["--format=safetensors", f"--output={folder}/{name}.safetensors"]
    assert export_command.main(["export", f"--workdir={folder}/{name}", *options]) == 0

    results: dict[str, Any] = {"images": images}
    for dtype in DTYPES:
        with jax.enable_x64(dtype == "float64"):
            kinds = {"dtype": dtype, "param_dtype": dtype}
            typed = Network(network.backbone.clone(**kinds), network.classifier.clone(**kinds))
            cast = jax.tree.map(np.dtype(dtype).type, variables)
            outputs: Any = jax.jit(functools.partial(typed.apply, train=False))(
                cast, images.astype(dtype)
            )
            results[dtype] = np.asarray(outputs.scores)
            assert results[dtype].dtype == dtype
    np.savez(folder / f"{name}.npz", **results)


def load(name: str, folder: Path) -> None:
    """Loads NAME.safetensors strictly, and prints the largest differences, relative to the scores."""
    import safetensors.torch
    import timm
    import torch

    network = timm.create_model(name, num_classes=CLASSES, **NAMES[name]).eval()
    network.load_state_dict(
        safetensors.torch.load_file(folder / f"{name}.safetensors"), strict=True
    )
    differences = []
    with np.load(folder / f"{name}.npz") as ours, torch.no_grad():
        for dtype in DTYPES:
            kind = getattr(torch, dtype)
            images = torch.from_numpy(ours["images"].transpose(0, 3, 1, 2).copy()).to(kind)
            scores = network.to(kind)(images).numpy()
            assert scores.std() > 1e-3
            differences.append(np.abs(scores - ours[dtype]).max() / np.abs(scores).max())
    words = (f"{dtype} {each:.1e}" for dtype, each in zip(DTYPES, differences, strict=True))
    print(f"{name:32}", *words, flush=True)
    assert differences[0] < 1e-4
    assert differences[1] < 1e-10


if __name__ == "__main__":
    step, where = {"export": export, "load": load}[sys.argv[1]], Path(sys.argv[2]).absolute()
    where.mkdir(parents=True, exist_ok=True)
    for each in NAMES:
        step(each, where)

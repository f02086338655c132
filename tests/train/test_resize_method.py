"""Runs on images that are not squashed: by every command with the same geometry and margins."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tiny_run import QUIET, small_config

from fgr_jax.data.images import crops
from fgr_jax.distributed import data_mesh
from fgr_jax.evaluate.evaluated_run import evaluate_run, open_for_test
from fgr_jax.inference.saved_run import open_run
from fgr_jax.predict import __main__ as predict
from fgr_jax.report.run_images import RunImages
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

# One that normalizes otherwise than with ImageNet's mean.
BACKBONE = """
import flax.linen as nn

class Patches(nn.Module):
    stride: int = 8
    mean: tuple = (0.1, 0.5, 0.9)
    std: tuple = (0.2, 0.2, 0.2)

    @nn.compact
    def __call__(self, images, *, train):
        return nn.relu(nn.Conv(16, (8, 8), 8)(images))

def patches(network):
    return Patches()
"""


def test_every_command_pads_with_the_color_that_the_network_takes_for_zero(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[Any]] = defaultdict(set)
    stage, padded = "", crops._padded

    def noted(*arguments: Any) -> Any:
        seen[stage].add(arguments[-1])
        return padded(*arguments)

    monkeypatch.setattr(crops, "_padded", noted)
    (tmp_path / "mine.py").write_text(BACKBONE)
    config = small_config(data_dir)
    config.network.backbone = f"{tmp_path}/mine.py:patches"
    config.data.resize_method, config.duration = "pad", "8 steps"
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((30, 50, 3), np.uint8))

    stage = "train"
    train(config, Workdir.open(tmp_path / "run"), QUIET)
    stage = "evaluate"
    mesh = data_mesh()
    opened = open_for_test(open_run(Workdir.open(tmp_path / "run")), mesh, QUIET)
    evaluated = evaluate_run(opened, mesh, QUIET, crops="five")
    assert evaluated is not None
    stage = "predict"
    image, heat = str(tmp_path / "image.png"), f"--heatmaps={tmp_path / 'heat'}"
    assert predict.main(["predict", f"--workdir={tmp_path / 'run'}", image, heat]) == 0
    stage = "report"
    assert len(RunImages(evaluated, mesh).heat_map_urls([0, 1], [[0], [1]])) == 2
    stage = "features"
    config.network.frozen, config.data.views = "backbone", 1
    config.data.data_dir = str(tmp_path / "tfds")
    (tmp_path / "tfds").mkdir()
    (tmp_path / "tfds" / "synthetic").symlink_to(data_dir / "synthetic")
    train(config, Workdir.open(tmp_path / "frozen"), QUIET)

    color = (26, 128, 230)  # 255 · (0.1, 0.5, 0.9), rounded
    assert dict(seen) == {
        name: {color} for name in ("train", "evaluate", "predict", "report", "features")
    }

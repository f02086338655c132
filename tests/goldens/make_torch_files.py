"""Files of torch.save in its formats: writes `torch_files/*.pth` beside this file.

Run by hand where PyTorch is installed; the tests read the files without it:

    python -m venv torch && torch/bin/pip install torch==2.13.0 numpy
    torch/bin/python tests/goldens/make_torch_files.py

`recipe.torch_file_tensors` has the values that must come out.
"""

import argparse
import collections
from pathlib import Path

import numpy as np
import recipe
import torch

FOLDER = Path(__file__).parent / "torch_files"


def state() -> collections.OrderedDict:
    """Tensors of all kinds, with views that are not contiguous and views of one storage."""
    tensors = {name: torch.from_numpy(a.copy()) for name, a in recipe.torch_file_tensors().items()}
    tensors["bfloat16"] = tensors["bfloat16"].to(torch.bfloat16)
    tensors["transposed"] = tensors["transposed"].T.contiguous().T
    whole = torch.cat([torch.zeros(3), tensors["first"], tensors["second"]])
    tensors["first"], tensors["second"] = whole[3:7], whole[7:]
    tensors["channels_last"] = tensors["channels_last"].to(memory_format=torch.channels_last)
    tensors["parameter"] = torch.nn.Parameter(tensors["parameter"])
    return collections.OrderedDict(tensors)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    torch.save(state(), FOLDER / "archive.pth")
    torch.save(state(), FOLDER / "sequence.pth", _use_new_zipfile_serialization=False)
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "args": argparse.Namespace(model="resnet18", lr=0.1),
        "metric": np.float64(0.5),
        "shape": torch.Size([2, 3]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "optimizer": optimizer.state_dict(),
        "state_dict": {name: torch.zeros_like(tensor) for name, tensor in state().items()},
        "state_dict_ema": {f"module.{name}": tensor for name, tensor in state().items()},
    }
    torch.save(checkpoint, FOLDER / "nested_archive.pth")
    torch.save(checkpoint, FOLDER / "nested_sequence.pth", _use_new_zipfile_serialization=False)
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    torch.save(module, FOLDER / "module.pth")


if __name__ == "__main__":
    main()

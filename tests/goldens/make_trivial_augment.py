"""torchvision's side of TrivialAugment's comparison: writes `trivial_augment.npz` beside this file.

Run by hand, as `make_preprocessing.py`. The file holds an image, and pixels of what torchvision's
operations make of it, at each strength and with either sign.
"""

from pathlib import Path

import numpy as np
import recipe
import torch
from make_preprocessing import photograph
from torchvision.transforms import InterpolationMode, TrivialAugmentWide, autoaugment

HERE = Path(__file__).parent
SIZE = 96
PLACES = recipe.places(SIZE * SIZE)[:64]


def main() -> None:
    picture = photograph(SIZE, SIZE)
    goldens = {"image": np.asarray(picture)}
    transform = TrivialAugmentWide()
    assert transform.interpolation == InterpolationMode.NEAREST
    assert transform.fill is None
    space = transform._augmentation_space(transform.num_magnitude_bins)
    for name, (strengths, is_signed) in space.items():
        strengths = torch.atleast_1d(strengths)
        signs = (1, -1) if is_signed else (1,)
        results = [
            np.asarray(
                autoaugment._apply_op(
                    picture, name, sign * float(strength), transform.interpolation, transform.fill
                )
            )
            for sign in signs
            for strength in strengths
        ]
        # [signs, strengths, places, 3]
        pixels = np.stack(results).reshape(len(signs), len(strengths), -1, 3)
        goldens[name] = pixels[:, :, PLACES]
    np.savez_compressed(HERE / "trivial_augment.npz", **goldens)
    print(f"{(HERE / 'trivial_augment.npz').stat().st_size / 1e3:.0f} kB: {', '.join(space)}")


if __name__ == "__main__":
    main()

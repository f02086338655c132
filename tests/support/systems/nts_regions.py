"""A float64 reference of NTS-Net's regions: anchors, non-maximum suppression and crops.

Yang, Luo, Wang, Hu, Gao, Wang: Learning to Navigate for Fine-grained Classification, ECCV 2018, section
3.2 (anchors, non-maximum suppression by informativeness) and section 4.2 (their sizes). The networks
and losses are in nts_net.py.

Boxes are (y0, x0, y1, x1), [A, 4], in pixels: the pixel in row i covers i … i + 1, and y1 and x1 are
excluded.

Where the authors' public code (yangze0930/NTS-Net) and the paper differ:

- The paper has anchors of sizes 48, 96 and 192 with aspect ratios 1:1, 3:2 and 2:3. The code's
  anchors of the first two sizes are multiplied by 2^⅓ and 2^⅔, those of the third by 1, 2^⅓ and 2^⅔,
  with ratios 0.667, 1 and 1.5: 6 + 6 + 9 a cell, 1614 at 448 × 448 on maps of 14, 7 and 4 cells.
- The code pads the image by 224 pixels of zeros on every side, after normalization, so that no
  anchor is cut off, and rounds the edges (in padded pixels) down to whole pixels. Suppression uses
  the rounded boxes. The paper does not say what happens at the border.
- Its suppression stops at M boxes and fails where less than M remain, which the anchors' number makes
  impossible in practice. A box is kept for an overlap below 0.25, so that exactly 0.25 is removed.
- Its crops are resized by `interpolate` with `align_corners=True`: the first and the last of 224
  samples are the centers of the box's first and last pixels, without antialiasing, also for a box of
  more than 224 pixels.

Properties:

- the suppressed list is in the order of decreasing scores, begins with the highest, and any two of
  its boxes overlap by less than the threshold; any increasing function of the scores gives the same;
- a score planted at one anchor makes it the first;
- crops of an image translated by whole pixels, with the box, are equal; a crop of a box of 224 × 224
  pixels is the pixels themselves; a crop of a linear ramp is a linear ramp between the centers of the
  box's edge pixels; mirrored boxes of a mirrored image give mirrored crops.
"""

import math

import numpy as np
from numpy.typing import NDArray
from systems.layers import Floats

Boxes = NDArray[np.int64]

PADDING = 224  # pixels of zeros on each side, and the width and height of a crop
OVERLAP = 0.25  # of the suppression
RATIOS = (0.667, 1.0, 1.5)  # width / height
# stride of the map, size in pixels and the factors of the size
SETTINGS = (
    (32, 48, (2 ** (1 / 3), 2 ** (2 / 3))),
    (64, 96, (2 ** (1 / 3), 2 ** (2 / 3))),
    (128, 192, (1.0, 2 ** (1 / 3), 2 ** (2 / 3))),
)


def anchors(height: int, width: int) -> Floats:
    """Returns the anchors of an image, [A, 4], in its own pixels and not rounded.

    Their order: the maps by stride; of a map the factors of the size; of a factor the aspect ratios;
    of a ratio the cells, row by row. A map of stride s has ⌈height / s⌉ × ⌈width / s⌉ cells, of which
    cell (i, j) has its center at ((i + ½) s, (j + ½) s).
    """
    boxes = []
    for stride, size, factors in SETTINGS:
        for factor in factors:
            for ratio in RATIOS:
                tall = size * factor / math.sqrt(ratio)
                wide = size * factor * math.sqrt(ratio)
                for i in range(math.ceil(height / stride)):
                    for j in range(math.ceil(width / stride)):
                        y, x = (i + 0.5) * stride, (j + 0.5) * stride
                        boxes.append((y - tall / 2, x - wide / 2, y + tall / 2, x + wide / 2))
    return np.array(boxes)


def padded_boxes(height: int, width: int) -> Boxes:
    """Returns the anchors in whole pixels of the padded image, rounded down, [A, 4]."""
    return np.floor(anchors(height, width) + PADDING).astype(np.int64)


def overlap(first: Boxes, second: Boxes) -> float:
    """Returns the intersection over union of two boxes, [4] each."""
    tall = min(first[2], second[2]) - max(first[0], second[0])
    wide = min(first[3], second[3]) - max(first[1], second[1])
    if tall <= 0 or wide <= 0:
        return 0.0
    shared = float(tall * wide)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (first, second)]
    return shared / (areas[0] + areas[1] - shared)


def suppress(boxes: Boxes, scores: Floats, count: int, threshold: float = OVERLAP) -> list[int]:
    """Returns the indices of at most `count` boxes, of decreasing scores (section 3.2).

    boxes: [A, 4]; scores: [A]. The box of the highest score is taken, every box that overlaps it by
    at least `threshold` is removed, and so on. Of equal scores the lower index comes first; the
    public code leaves that to a sort that is not stable.
    """
    remaining = sorted(range(len(scores)), key=lambda a: (-scores[a], a))
    kept: list[int] = []
    while remaining and len(kept) < count:
        best = remaining[0]
        kept.append(best)
        remaining = [a for a in remaining[1:] if overlap(boxes[a], boxes[best]) < threshold]
    return kept


def crop(image: Floats, box: Boxes, size: int = PADDING, padding: int = PADDING) -> Floats:
    """Returns the pixels of a box, resized bilinearly to [size, size, C].

    image: [H, W, C], not padded; box: [4], whole pixels of the image with `padding` pixels of zeros
    on each side.
    """
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    pixels = padded[box[0] : box[2], box[1] : box[3]]
    return _resize(_resize(pixels, size).transpose(1, 0, 2), size).transpose(1, 0, 2)


def _resize(pixels: Floats, size: int) -> Floats:
    """Linear interpolation of the first axis at `size` places from its first to its last element."""
    rows = []
    for i in range(size):
        place = i * (len(pixels) - 1) / (size - 1)
        low = min(math.floor(place), len(pixels) - 1)
        high = min(low + 1, len(pixels) - 1)
        rows.append(pixels[low] * (1.0 - (place - low)) + pixels[high] * (place - low))
    return np.stack(rows)

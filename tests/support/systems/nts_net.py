"""A float64 reference of NTS-Net's networks and losses, written from the paper.

Yang, Luo, Wang, Hu, Gao, Wang: Learning to Navigate for Fine-grained Classification, ECCV 2018.
Section 3.2 (Navigator and Teacher), section 3.3 (Scrutinizer), section 3.4 (the losses). Anchors,
suppression and crops are in nts_regions.py.

The system, of the last features [B, h, w, D] of an image of 448 × 448 pixels:

1. Navigator: 3×3 convolution to 128 channels, ReLU; 3×3 with stride 2, ReLU; again; of each of the
   three maps a 1×1 convolution to a score for each anchor, A scores in all;
2. the M = 6 anchors that suppression keeps are cropped and resized to 224 × 224, and the same backbone
   gives their features, averaged over the cells, [B, M, D]; crops carry no gradient;
3. Teacher: a linear layer of these features to the classes, for each crop;
4. Scrutinizer: the features of the first K = 4 crops and then those of the image, joined,
   [B, (K + 1) D], linear to the classes. Its scores are the prediction;
5. losses: ranking of the M scores, Teacher, Scrutinizer and the image's own classifier, added.

The ranking loss of the scores I and of the Teacher's losses −log C (equation of section 3.4) is
Σ over pairs with C_i < C_s of max(1 − (I_s − I_i), 0).

Where the authors' public code (yangze0930/NTS-Net; Hawkeye's is the same) and the paper differ:

- The paper's Navigator is a feature pyramid with top-down and lateral connections; the code's only
  goes down, and the features that it gets carry no gradient to the backbone (a detached copy).
- The Teacher's loss is a sum over the M crops in the paper, and contains the whole image by the same
  classifier. In the code it is the mean over the M crops, and the image has a classifier of its own.
- The code divides the ranking loss by the batch's size and sums over the pairs, as the paper does for
  one image. No gradient goes through the order of the losses. Pairs with equal losses are left out.
- λ and μ of the paper's total loss are 1, and so are the code's weights. Hawkeye smooths the labels by
  0.1 in all but the ranking's losses.
- Parameters with C = 200 classes: the three linear layers (2048 C + C) twice and (5 · 2048 C + C), and
  the Navigator's 2.66 million; 29.0 million with the ResNet-50's 23.5. The 25.5 million that are quoted
  for NTS-Net are no more than a ResNet-50 with ImageNet's 1000 classes, 25.56.

Properties:

- the ranking loss is 0 exactly if every pair is in order with a margin of at least 1; a constant added
  to all scores of an image changes nothing, so that its gradient sums to 0 over them; crops permuted
  with their scores change nothing, nor does an increasing function of the losses;
- the Scrutinizer's scores depend on the order of the crops, the Teacher's do not;
- the Navigator's scores are at the place of their anchor: of a map, the cells of its first anchor row
  by row, then those of its second.
"""

import numpy as np
from systems.layers import (
    Floats,
    Gradients,
    Labels,
    Parameters,
    cross_entropy,
    cross_entropy_gradient,
    linear,
    linear_gradient,
)


def convolution(inputs: Floats, weight: Floats, bias: Floats, stride: int) -> Floats:
    """Returns the 3×3 convolution with one row and column of zeros on each side, [B, h', w', E].

    inputs: [B, h, w, D]; weight: [3, 3, D, E]; bias: [E]. h' = ⌈h / stride⌉, w' = ⌈w / stride⌉. The
    first window's center is at cell (0, 0), as in PyTorch; the padding that XLA calls SAME puts it at
    (1, 1) for an even side and a stride of 2.
    """
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = (-(-side // stride) for side in inputs.shape[1:3])
    outputs = np.zeros((len(inputs), height, width, weight.shape[-1])) + bias
    for i in range(height):
        for j in range(width):
            window = padded[:, i * stride : i * stride + 3, j * stride : j * stride + 3]
            outputs[:, i, j] += np.einsum("bijd,ijde->be", window, weight)
    return outputs


def convolution_gradient(
    inputs: Floats, weight: Floats, stride: int, cotangent: Floats
) -> tuple[Floats, Floats, Floats]:
    """Returns the gradients of `convolution` with respect to inputs, weight and bias."""
    padded = np.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
    d_padded, d_weight = np.zeros_like(padded), np.zeros_like(weight)
    for i in range(cotangent.shape[1]):
        for j in range(cotangent.shape[2]):
            rows = slice(i * stride, i * stride + 3)
            columns = slice(j * stride, j * stride + 3)
            d_output = cotangent[:, i, j]
            d_weight += np.einsum("bijd,be->ijde", padded[:, rows, columns], d_output)
            d_padded[:, rows, columns] += np.einsum("be,ijde->bijd", d_output, weight)
    return d_padded[:, 1:-1, 1:-1], d_weight, cotangent.sum(axis=(0, 1, 2))


def navigator(features: Floats, parameters: Parameters) -> Floats:
    """Step 1: the scores of all anchors, [B, A], in the order of nts_regions.anchors.

    features: [B, h, w, D].
    parameters: `down1_weight` [3, 3, D, E], `down2_weight` and `down3_weight` [3, 3, E, E],
        `down1_bias`, `down2_bias` and `down3_bias` [E]; `score1_weight` [E, 6], `score2_weight`
        [E, 6] and `score3_weight` [E, 9] with `score1_bias` and so on.
    """
    scores = []
    for n, (_, outputs) in enumerate(_downs(features, parameters), start=1):
        anchors = linear(outputs, parameters[f"score{n}_weight"], parameters[f"score{n}_bias"])
        scores.append(anchors.transpose(0, 3, 1, 2).reshape(len(features), -1))
    return np.concatenate(scores, axis=1)


def navigator_gradient(
    features: Floats, parameters: Parameters, cotangent: Floats
) -> tuple[Floats, Gradients]:
    """Returns the gradients of sum(navigator * cotangent), features' and parameters'.

    cotangent: [B, A]. The public code discards the gradient of the features.
    """
    gradients: Gradients = {}
    maps = _downs(features, parameters)
    d_maps, start = [], 0
    for n, (_, outputs) in enumerate(maps, start=1):
        batch, height, width, _ = outputs.shape
        anchors = parameters[f"score{n}_weight"].shape[1]
        stop = start + anchors * height * width
        d_scores = cotangent[:, start:stop].reshape(batch, anchors, height, width)
        d_outputs, gradients[f"score{n}_weight"], gradients[f"score{n}_bias"] = linear_gradient(
            outputs, parameters[f"score{n}_weight"], d_scores.transpose(0, 2, 3, 1)
        )
        d_maps.append(d_outputs)
        start = stop
    d_inputs = np.zeros_like(maps[-1][1])
    for n in (3, 2, 1):
        inputs, outputs = maps[n - 1]
        d_inputs, gradients[f"down{n}_weight"], gradients[f"down{n}_bias"] = convolution_gradient(
            inputs,
            parameters[f"down{n}_weight"],
            1 if n == 1 else 2,
            (d_maps[n - 1] + d_inputs) * (outputs > 0.0),
        )
    return d_inputs, gradients


def scrutinizer(crops: Floats, image: Floats, parameters: Parameters, count: int = 4) -> Floats:
    """Step 4: the scores [B, C] of the features of the crops [B, M, D] and of the image [B, D].

    parameters: `scrutinizer_weight` [(count + 1) · D, C], the first crop's rows first and the
        image's last, and `scrutinizer_bias` [C].
    """
    joined = np.concatenate([crops[:, :count].reshape(len(crops), -1), image], axis=1)
    return linear(joined, parameters["scrutinizer_weight"], parameters["scrutinizer_bias"])


def scrutinizer_gradient(
    crops: Floats, image: Floats, parameters: Parameters, cotangent: Floats, count: int = 4
) -> tuple[Floats, Floats, Gradients]:
    """Returns the gradients of sum(scrutinizer * cotangent): crops', image's and parameters'."""
    joined = np.concatenate([crops[:, :count].reshape(len(crops), -1), image], axis=1)
    d_joined, d_weight, d_bias = linear_gradient(
        joined, parameters["scrutinizer_weight"], cotangent
    )
    d_crops = np.zeros_like(crops)
    d_crops[:, :count] = d_joined[:, : -image.shape[1]].reshape(d_crops[:, :count].shape)
    gradients = {"scrutinizer_weight": d_weight, "scrutinizer_bias": d_bias}
    return d_crops, d_joined[:, -image.shape[1] :], gradients


def ranking_loss(scores: Floats, crop_losses: Floats) -> float:
    """The Navigator's loss: the hinge over the pairs of each image, summed, averaged over images.

    scores: [B, M], of the kept anchors; crop_losses: [B, M], the Teacher's losses −log C.
    """
    total = 0.0
    for b in range(len(scores)):
        for better in range(scores.shape[1]):
            for worse in range(scores.shape[1]):
                if crop_losses[b, worse] > crop_losses[b, better]:
                    total += max(1.0 - (scores[b, better] - scores[b, worse]), 0.0)
    return total / len(scores)


def ranking_loss_gradient(scores: Floats, crop_losses: Floats) -> Floats:
    """Returns the gradient of `ranking_loss` with respect to the scores, [B, M]; 0 at the kink."""
    gradient = np.zeros_like(scores)
    for b in range(len(scores)):
        for better in range(scores.shape[1]):
            for worse in range(scores.shape[1]):
                ordered = crop_losses[b, worse] > crop_losses[b, better]
                if ordered and scores[b, better] - scores[b, worse] < 1.0:
                    gradient[b, better] -= 1.0 / len(scores)
                    gradient[b, worse] += 1.0 / len(scores)
    return gradient


def losses(
    image_scores: Floats,
    joined_scores: Floats,
    crop_scores: Floats,
    kept_scores: Floats,
    labels: Labels,
    crops_added: bool = False,
) -> dict[str, float]:
    """Step 5: the terms `image`, `scrutinizer`, `teacher` and `ranking`, averages over the batch.

    image_scores and joined_scores: [B, C], of the image's classifier and of the Scrutinizer;
    crop_scores: [B, M, C], of the Teacher; kept_scores: [B, M], of the Navigator; labels: [B].
    crops_added: whether the Teacher's losses are added over the crops, as in the paper, or averaged.
    """
    crop_losses = _crop_losses(crop_scores, labels)
    over_crops = crop_losses.sum(axis=1) if crops_added else crop_losses.mean(axis=1)
    return {
        "image": float(cross_entropy(image_scores, labels).mean()),
        "scrutinizer": float(cross_entropy(joined_scores, labels).mean()),
        "teacher": float(over_crops.mean()),
        "ranking": ranking_loss(kept_scores, crop_losses),
    }


def losses_gradient(
    image_scores: Floats,
    joined_scores: Floats,
    crop_scores: Floats,
    kept_scores: Floats,
    labels: Labels,
    crops_added: bool = False,
) -> tuple[Floats, Floats, Floats, Floats]:
    """Returns the gradients of the sum of `losses` with respect to its first four arguments."""
    batch, count, classes = crop_scores.shape
    d_crops = cross_entropy_gradient(crop_scores.reshape(-1, classes), np.repeat(labels, count))
    return (
        cross_entropy_gradient(image_scores, labels) / batch,
        cross_entropy_gradient(joined_scores, labels) / batch,
        d_crops.reshape(crop_scores.shape) / (batch * (1 if crops_added else count)),
        ranking_loss_gradient(kept_scores, _crop_losses(crop_scores, labels)),
    )


def _crop_losses(crop_scores: Floats, labels: Labels) -> Floats:
    count = crop_scores.shape[1]
    rows = crop_scores.reshape(-1, crop_scores.shape[2])
    return cross_entropy(rows, np.repeat(labels, count)).reshape(-1, count)


def _downs(features: Floats, parameters: Parameters) -> list[tuple[Floats, Floats]]:
    """The inputs and the outputs, behind the ReLU, of the three convolutions."""
    maps = []
    inputs = features
    for n in (1, 2, 3):
        weight, bias = parameters[f"down{n}_weight"], parameters[f"down{n}_bias"]
        outputs = np.maximum(convolution(inputs, weight, bias, 1 if n == 1 else 2), 0.0)
        maps.append((inputs, outputs))
        inputs = outputs
    return maps

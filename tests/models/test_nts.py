"""NTS-Net against its float64 reference: the navigator, the regions, the crops, scores and losses."""

from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import shapes_of
from saved_runs import saved
from small_backbones import STAGED_BACKBONE
from systems import nts_net, nts_regions
from systems.layers import linear_gradient
from tiny_run import QUIET

from fgr_jax.config import NEVER, Config
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.export import __main__ as export
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.losses import cross_entropy
from fgr_jax.losses.interface import Objective, Outputs, Targets
from fgr_jax.models.heads import nts
from fgr_jax.models.heads.regions import best_boxes, crops_of
from fgr_jax.models.network import Network
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

CLASSES, CHANNELS, SIDE = 5, 6, 448
CLOSE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
# Of any scores and boxes of the same number.
BEST_BOXES = jax.jit(best_boxes, static_argnums=(2, 3))


class Averages(nn.Module):
    """Features of the averages of patches of 32 pixels."""

    stride: int = 32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        del train
        kernel = self.param("kernel", nn.initializers.normal(), (3, CHANNELS), jnp.float64)
        means = nn.avg_pool(images, (32, 32), (32, 32))
        return nn.relu(means @ kernel)


@pytest.fixture(scope="module")
def case() -> Any:
    """A network in float64, its parameters, images and outputs."""
    with jax.enable_x64(True):
        head = nts.NtsHead(CLASSES, channels=4, dtype=jnp.float64, param_dtype=jnp.float64)
        network = Network(Averages(), head)
        rng = np.random.default_rng(0)
        images = rng.normal(size=(2, SIDE, SIDE, 3))
        images += rng.normal(size=(2, 14, 14, 3)).repeat(32, 1).repeat(32, 2)
        params = jax.tree.map(
            # Regions of each of the three strides are chosen with this seed.
            lambda leaf: np.random.default_rng([9, leaf.size]).normal(0, 0.3, leaf.shape),
            shapes_of(network, SIDE, SIDE)["params"],
        )
        outputs = jax.device_get(
            jax.jit(lambda p, x: network.apply({"params": p}, x, train=False))(params, images)
        )
        yield network, params, images, outputs


def of_reference(params: Any) -> dict[str, Any]:
    """The names of the reference."""
    head = params["classifier"]
    renamed = {}
    for n in (1, 2, 3):
        for ours, theirs in ((f"navigator{n}", f"down{n}"), (f"anchors{n}", f"score{n}")):
            kernel = head[ours]["kernel"]
            renamed[f"{theirs}_weight"] = kernel[0, 0] if theirs[0] == "s" else kernel
            renamed[f"{theirs}_bias"] = head[ours]["bias"]
    for name in ("scrutinizer", "image", "teacher"):
        renamed[f"{name}_weight"] = head[name]["kernel"]
        renamed[f"{name}_bias"] = head[name]["bias"]
    return renamed


def means_of(images: Any) -> Any:
    batch, side = len(images), images.shape[1] // 32
    return images.reshape(batch, side, 32, side, 32, 3).mean((2, 4))


def features_of(params: Any, images: Any) -> Any:
    return np.maximum(means_of(images) @ params["backbone"]["kernel"], 0)


def expected(params: Any, images: Any) -> tuple[Outputs, list[list[int]], Any]:
    """The outputs of the reference, the indices of the boxes, and the crops."""
    reference, features = of_reference(params), features_of(params, images)
    scores = nts_net.navigator(features, reference)
    boxes = nts_regions.padded_boxes(SIDE, SIDE)
    chosen = [nts_regions.suppress(boxes, each, 6) for each in scores]
    crops = np.stack(
        [
            np.stack([nts_regions.crop(image, boxes[index]) for index in indices])
            for image, indices in zip(images, chosen, strict=True)
        ]
    )
    looked_at = features_of(params, crops.reshape(-1, *crops.shape[2:])).mean((1, 2))
    looked_at = looked_at.reshape(len(images), 6, -1)
    average = features.mean((1, 2))
    head = params["classifier"]
    parts = {
        "image": average @ head["image"]["kernel"] + head["image"]["bias"],
        "crops": looked_at @ head["teacher"]["kernel"] + head["teacher"]["bias"],
        "informativeness": np.take_along_axis(scores, np.array(chosen), axis=1),
    }
    joined = nts_net.scrutinizer(looked_at, average, reference)
    made: Any = Outputs
    return made(joined, average, branches=parts), chosen, crops


def test_outputs_are_those_of_the_reference(case: Any) -> None:
    _, params, images, outputs = case
    wanted, chosen, _ = expected(params, images)
    assert chosen[0] != chosen[1]
    assert outputs.maps is None
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), outputs, wanted)


def test_losses_and_their_gradients(case: Any) -> None:
    network, _, _, outputs = case
    labels = np.array([3, 0])
    targets = Targets(jnp.asarray(labels), jnp.ones(2, bool), jnp.int32(0))
    base = Objective(lambda o, t, _: cross_entropy(o.scores, t.labels))
    objective = network.classifier.objective(base)
    names = ("image", "crops", "informativeness")

    def total(joined: Any, parts: Any) -> Any:
        given = outputs._replace(scores=joined, branches=parts)
        return jnp.mean(objective.losses(given, targets, {}))

    with jax.enable_x64(True):
        value, (of_joined, of_parts) = jax.jit(jax.value_and_grad(total, (0, 1)))(
            outputs.scores, outputs.branches
        )
    image, crops, kept = (outputs.branches[name] for name in names)
    arguments = (image, outputs.scores, crops, kept, labels)
    np.testing.assert_allclose(value, sum(nts_net.losses(*arguments).values()), **CLOSE)
    wanted = nts_net.losses_gradient(*arguments)
    found = (of_parts["image"], of_joined, of_parts["crops"], of_parts["informativeness"])
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.abs(theirs).max() > 1e-3
        np.testing.assert_allclose(ours, theirs, **CLOSE)


def gradients_of_reference(params: Any, images: Any, labels: Any) -> dict[str, Any]:
    """The gradients of the sum of the losses, by the reference's chain rule, with its names."""
    reference, features = of_reference(params), features_of(params, images)
    outputs: Any
    outputs, chosen, crops = expected(params, images)
    d_image, d_joined, d_crops, d_kept = nts_net.losses_gradient(
        outputs.branches["image"],
        outputs.scores,
        outputs.branches["crops"],
        outputs.branches["informativeness"],
        labels,
    )
    of_crops = features_of(params, crops.reshape(-1, *crops.shape[2:]))
    seen = of_crops.mean((1, 2)).reshape(len(images), 6, -1)
    average, head = features.mean((1, 2)), params["classifier"]
    from_joined, d_average, gradients = nts_net.scrutinizer_gradient(
        seen, average, reference, d_joined
    )
    from_image, *of_image = linear_gradient(average, head["image"]["kernel"], d_image)
    from_teacher, *of_teacher = linear_gradient(seen, head["teacher"]["kernel"], d_crops)
    gradients |= dict(zip(("image_weight", "image_bias"), of_image, strict=True))
    gradients |= dict(zip(("teacher_weight", "teacher_bias"), of_teacher, strict=True))
    d_scores = np.zeros((len(images), len(nts_regions.padded_boxes(SIDE, SIDE))))
    np.put_along_axis(d_scores, np.array(chosen), d_kept, axis=1)
    _, of_navigator = nts_net.navigator_gradient(features, reference, d_scores)
    # No gradient comes from the navigator, and none goes to the pixels of the crops.
    gradients["backbone"] = sum(
        of_backbone(cells, pixels, cotangent)
        for cells, pixels, cotangent in (
            (features, images, d_average + from_image),
            (
                of_crops,
                crops.reshape(-1, *crops.shape[2:]),
                (from_joined + from_teacher).reshape(len(of_crops), -1),
            ),
        )
    )
    return gradients | of_navigator


def of_backbone(features: Any, images: Any, cotangent: Any) -> Any:
    """The gradient of the kernel, given that `[B, D]` of the averages of the features."""
    of_cells = cotangent[:, None, None] / (features.shape[1] * features.shape[2])
    return np.einsum("bijc,bijd->cd", means_of(images), of_cells * (features > 0))


def test_gradients_of_all_parameters(case: Any) -> None:
    """Of the navigator, the three classifiers, and the backbone by way of the image and the crops."""
    network, params, images, _ = case
    labels = np.array([3, 0])
    base = Objective(lambda o, t, _: cross_entropy(o.scores, t.labels))
    objective = network.classifier.objective(base)

    def mean_loss(params: Any, images: Any) -> Any:
        outputs = network.apply({"params": params}, images, train=True)
        targets = Targets(jnp.asarray(labels), jnp.ones(2, bool), jnp.int32(0))
        return jnp.mean(objective.losses(outputs, targets, {}))

    with jax.enable_x64(True):
        gradients = jax.device_get(jax.jit(jax.grad(mean_loss))(params, images))
    found = of_reference(gradients) | {"backbone": gradients["backbone"]["kernel"]}
    wanted = gradients_of_reference(params, images, labels)
    assert found.keys() == wanted.keys()
    assert len(found) == len(jax.tree.leaves(params))
    for name, gradient in wanted.items():
        assert np.abs(gradient).max() > 1e-3, name
        np.testing.assert_allclose(found[name], gradient, **CLOSE, err_msg=name)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_boxes_are_chosen_as_by_the_reference(data: st.DataObject) -> None:
    boxes = nts_regions.padded_boxes(448, 448)[data.draw(st.integers(0, 40)) :: 41]
    values = st.sampled_from([-3.0, 0.0, 0.5, 1.0, 1e6])
    scores = np.array(data.draw(st.lists(values, min_size=len(boxes), max_size=len(boxes))))
    wanted = nts_regions.suppress(boxes, scores, 3)
    found = BEST_BOXES(scores, boxes.astype(np.int32), 3, 0.25)
    assert found.tolist()[: len(wanted)] == wanted


def test_where_all_boxes_overlap_the_others_follow_in_order() -> None:
    boxes = np.array([[0, 0, 9, 9]] * 3, np.int32)
    assert BEST_BOXES(np.array([1.0, 3.0, 2.0]), boxes, 3, 0.25).tolist() == [1, 2, 0]


def test_the_first_region_is_a_planted_bright_object() -> None:
    image = np.zeros((1, SIDE, SIDE, 3), np.float32)
    boxes = nts._boxes([(14, 14), (7, 7), (4, 4)], 32.0)
    np.testing.assert_array_equal(boxes + 224, nts_regions.padded_boxes(SIDE, SIDE))
    is_within = (boxes >= 0).all(1) & (boxes <= SIDE).all(1)
    planted = int(np.flatnonzero(is_within)[321])
    top, left, bottom, right = boxes[planted]
    image[0, top:bottom, left:right] = 1
    # Of a navigator that scores the brightness of a box, less that of a gray one.
    gray = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) / 2
    inside = [image[0, max(t, 0) : b, max(x, 0) : r, 0].sum() for t, x, b, r in boxes] - gray
    (found,) = BEST_BOXES(inside, boxes, 1, 0.25).tolist()
    assert found == planted
    crop = jax.jit(crops_of, static_argnums=2)(image, boxes[[[found]]], 20)
    np.testing.assert_allclose(crop, 1, rtol=1e-6)


@pytest.fixture
def config(tiny: Config) -> Config:
    tiny.network.backbone, tiny.network.head = STAGED_BACKBONE, "nts"
    tiny.duration, tiny.optimizer.learning_rate = "1 epoch", 0.003
    tiny.loss.gce_start = NEVER  # which is compiled for each of the scores
    return tiny


def test_a_run_with_a_partly_frozen_backbone_is_resumed_to_the_bit(
    config: Config, tmp_path: Path
) -> None:
    config.network.frozen = "one"
    train(config, Workdir.open(tmp_path / "whole"), QUIET)
    config.duration = "4 steps"
    train(config, Workdir.open(tmp_path / "halves"), QUIET)
    (tmp_path / "halves" / "lock").unlink()
    recorded = tmp_path / "halves" / "config.json"
    recorded.write_text(recorded.read_text().replace('"4 steps"', '"1 epoch"'))
    config.duration = "1 epoch"
    train(config, Workdir.open(tmp_path / "halves"), QUIET)
    mesh = data_mesh(jax.devices()[:1])
    whole, halves = (
        restore(open_run(Workdir.open(tmp_path / name)), None, mesh).variables
        for name in ("whole", "halves")
    )
    jax.tree.map(np.testing.assert_array_equal, whole, halves)
    assert not np.allclose(whole["params"]["classifier"]["navigator1"]["bias"], 0)


def test_it_needs_images(config: Config, tmp_path: Path) -> None:
    config.network.frozen, config.data.views = "backbone", 1
    with pytest.raises(UserError, match=r"--config\.data\.views.*set it to 0"):
        train(config, Workdir.open(tmp_path), QUIET)


def test_it_is_no_onnx_file(config: Config, tmp_path: Path) -> None:
    workdir = saved(config, tmp_path / "run")
    with pytest.raises(
        UserError, match="uses sort, which cannot be written as ONNX here"
    ) as caught:
        export.main(["export", f"--workdir={workdir}"])
    assert "\n" not in str(caught.value)

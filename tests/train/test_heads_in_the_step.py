"""What the training step promises holds for every listed head, and for none is known to the step."""

import math

import jax
import numpy as np
import pytest
from small_backbone import SMALL_BACKBONE
from small_backbones import STAGED_BACKBONE
from tiny_step import as_numpy, batch_of, build, relative_difference

from fgr_jax.benchmark.compiled import collectives
from fgr_jax.config import Config
from fgr_jax.models.heads import HEADS


# The others are tested in `test_step.py` and `test_compared_losses.py`; `mamc` is as `mamc_pooled`.
@pytest.fixture(params=sorted({*HEADS} - {"cam", "gaussian", "mamc"}))
def with_head(request: pytest.FixtureRequest, tiny: Config) -> Config:
    """A run of each head, on features of few cells."""
    is_of_stages = request.param == "dfl_cnn"
    tiny.network.backbone = STAGED_BACKBONE if is_of_stages else SMALL_BACKBONE
    tiny.network.head = request.param
    return tiny


def is_matrix(shape: tuple[int, ...]) -> bool:
    return sum(length > 1 for length in shape) > 1


def test_eight_devices_exchange_one_sum_and_take_the_step_of_one(with_head: Config) -> None:
    """No example leaves its device, and the same step twice has the same bits."""
    after = {}
    for devices in (1, 8):
        steps, state = build(with_head, devices=devices)
        batch = batch_of(16, devices=devices)
        compiled = steps.train.lower(state, batch).compile()
        if devices == 8:
            found = collectives(compiled.as_text())
            # Beside vectors, such as those of BatchNorm.
            matrices = [each for each in found if any(map(is_matrix, each.shapes))]
            of_kernels = max(matrices, key=lambda each: len(each.shapes))
            others = [each for each in found if each.kind != "all-reduce" or each in matrices]
            others.remove(of_kernels)
            if with_head.network.head.startswith("mamc"):
                # Its constraint compares the f of all images: 16 × 2 attentions × 1024.
                lengths = {math.prod(shape) for each in others for shape in each.shapes}
                assert lengths == {32, 32 * 1024}
            elif with_head.network.head in ("nts", "tasn"):
                # The backbone is applied twice, and the second gradient ends in its first layer.
                assert [each.kind for each in others] == ["all-reduce"]
                assert {shape for shape in others[0].shapes if is_matrix(shape)} == {(4, 4, 3, 8)}
            else:
                assert not others
            sizes = {leaf.size for leaf in jax.tree.leaves(state.params) if is_matrix(leaf.shape)}
            assert sizes <= {math.prod(shape) for shape in of_kernels.shapes}
        after[devices] = [compiled(steps.init(), batch)[0] for _ in range(2)]
        for one, again in zip(*map(as_numpy, after[devices]), strict=True):
            assert one.tobytes() == again.tobytes()
    ours, theirs = (after[devices][0] for devices in (8, 1))
    assert relative_difference(ours.params, theirs.params) < 1e-4
    assert relative_difference(ours.batch_stats, theirs.batch_stats) < 1e-4
    before = build(with_head)[1].params["classifier"]
    moved = [
        not np.array_equal(one, other)
        for one, other in zip(*map(as_numpy, (before, theirs.params["classifier"])), strict=True)
    ]
    assert all(moved)  # every parameter of the head is trained


def test_on_gpus_no_operation_of_a_head_depends_on_the_order_of_threads(with_head: Config) -> None:
    steps, state = build(with_head)
    traced = steps.train.trace(state, batch_of(16))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.dot_general" in text
    assert "scatter" not in text

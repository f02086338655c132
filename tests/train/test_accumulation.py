"""Steps that are computed in parts."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_backbones import PATCHES
from tiny_step import as_numpy, batch_of, build, relative_difference

from fgr_jax import config as config_lib
from fgr_jax.benchmark.compiled import collectives
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.losses.interface import Outputs
from fgr_jax.train import loop
from fgr_jax.train.accumulation import over_parts, rows_of_part


@pytest.fixture
def config(tiny: Config, tmp_path: Path) -> Config:
    """32 images, a network without BatchNorm, and the block."""
    (tmp_path / "mine.py").write_text(PATCHES)
    tiny.network.backbone = f"{tmp_path}/mine.py:patches"
    tiny.batch_size = 32
    return tiny


def in_parts(config: Config, parts: int) -> Config:
    return dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, accumulate=parts)
    )


def masked_batch(devices: int, seed: int) -> dict:
    """32 images, of which those in the parts 0 to 3 count 8, 7, 2 and 5 times."""
    batch = batch_of(32, devices=devices, seed=seed)
    mask = np.arange(32) // 4 < np.asarray([8, 7, 2, 5])[np.arange(32) % 4]
    return {**batch, "mask": jax.device_put(mask, batch["mask"].sharding)}


@pytest.mark.parametrize(("devices", "extra"), [(1, "center"), (8, "mixup")])
def test_four_parts_of_8_are_a_batch_of_32(config: Config, devices: int, extra: str) -> None:
    start: int | None = 0
    if extra == "center":
        config.loss.center, start = 0.5, None
    else:
        config.data.mixup, config.loss.label_smoothing = 0.5, 0.1
    outcomes: list[Any] = []
    for parts in (1, 4, 4):
        steps, state = build(in_parts(config, parts), gce_start_step=start, devices=devices)
        records = []
        for seed in range(2):
            state, record = steps.train(state, masked_batch(devices, seed))
            records.append(record)
        outcomes.append((state, records))
    (whole, its_records), (ours, records), (again, _) = outcomes
    assert relative_difference(ours.params, whole.params) < 1e-6
    assert relative_difference(ours.opt_state, whole.opt_state) < 1e-6
    for one, other in zip(records, its_records, strict=True):
        np.testing.assert_allclose(one.loss, other.loss, rtol=1e-6)
        np.testing.assert_array_equal(one.mask_digest, other.mask_digest)
    assert int(ours.epoch_totals.examples) == int(whole.epoch_totals.examples) == 44
    assert int(ours.epoch_totals.top1) == int(whole.epoch_totals.top1)
    if extra == "center":
        assert np.asarray(whole.extra["centers"]).any()
        assert relative_difference(ours.extra, whole.extra) < 1e-6
    for one, other in zip(as_numpy(ours), as_numpy(again), strict=True):
        assert one.tobytes() == other.tobytes()
    if devices > 1:
        compiled = steps.train.lower(state, masked_batch(devices, 0)).compile().as_text()
        assert {each.kind for each in collectives(compiled)} == {"all-reduce"}  # no row travels


def computed(stats: Any, rows: Any, part: Any) -> Any:
    """A step whose outcome tells what it was given."""
    outputs = Outputs(rows, 10 * rows, offset=jnp.ones(3), branches={"a": 2 * rows})
    gradients = {"w": jnp.sum(rows) * (1 + part)}
    return gradients, (2 * stats + jnp.sum(rows), outputs, jnp.max(rows), jnp.ones(2) * 7)


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_parts_are_rows_with_a_stride_one_after_the_other(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    run = jax.jit(lambda stats, rows: over_parts(3, computed, stats, rows))
    gradients, (stats, outputs, totals, digest) = run(1.0, rows)
    sums, expected = [rows[part::3].sum() for part in range(3)], 1.0
    for each in sums:
        expected = 2 * expected + each
    assert float(stats) == expected
    assert float(gradients["w"]) == sums[0] + 2 * sums[1] + 3 * sums[2]
    assert float(totals) == sum(rows[part::3].max() for part in range(3))
    np.testing.assert_array_equal(outputs.scores, rows)
    np.testing.assert_array_equal(outputs.features, 10 * rows)
    assert outputs.maps is outputs.class_weights is None
    assert outputs.offset.shape == (3,)
    np.testing.assert_array_equal(outputs.branches["a"], 2 * rows)
    assert digest.tolist() == [7, 7]
    for part in range(3):
        np.testing.assert_array_equal(rows_of_part(rows, part, 3), rows[part::3])
    # A convolution in a loop is slow on CPUs, and elsewhere a loop compiles faster.
    assert ("while" in run.lower(1.0, rows).as_text()) == (backend == "gpu")


@pytest.mark.parametrize(
    ("section", "field", "value", "message"),
    [
        ("optimizer", "accumulate", 3, "accumulate=3: must be a divisor of batch_size, which is 8"),
        ("optimizer", "accumulate", 0, "accumulate=0: must be at least 1"),
        ("network", "norm_group", 3, "norm_group=3: must be a divisor of 4, the images of a forw"),
        ("loss", "pairwise_confusion", 1.0, "pairwise_confusion=1.0: must be 0 with optimizer.acc"),
    ],
)
def test_what_a_part_cannot_be(
    tiny: Config, section: str, field: str, value: float, message: str
) -> None:
    tiny.optimizer.accumulate, tiny.loss.gce_start = 2, "never"
    setattr(getattr(tiny, section), field, value)
    with pytest.raises(UserError, match=message):
        config_lib.validate(tiny)


def test_each_device_computes_a_share_of_each_part(tiny: Config) -> None:
    tiny.optimizer.accumulate = 2
    with pytest.raises(UserError, match=r"batch_size=8: must be .* 8 here, times 2 \(--config.opt"):
        loop.train(tiny, None, None)  # type: ignore[arg-type]  # before either is used

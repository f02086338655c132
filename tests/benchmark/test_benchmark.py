"""The benchmark as a process: it prints figures, and its first part needs jax and little more."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_backbone import SMALL_BACKBONE

from fgr_jax.benchmark.layers import print_layers
from fgr_jax.benchmark.pytorch_speed import print_beside_pytorch
from fgr_jax.benchmark.step_time import print_head_times
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.models.heads import HEADS

ROOT = Path(__file__).parent.parent.parent
SMALL = [
    f"--config={ROOT / 'configs' / 'quickstart_scratch.py'}",
    "--config.batch_size=4",
    "--config.data.resize=36",
    "--config.data.crop=32",
    f"--config.network.backbone={SMALL_BACKBONE}",
    "--rounds=3",
]

# Makes the input packages impossible to import, as on a machine that has none of them.
WITHOUT_INPUT_PACKAGES = """
import sys
for name in (
    *("array_record", "cv2", "grain", "orbax", "scipy", "sklearn", "tensorboardX"),
    *("tensorflow_datasets", "threadpoolctl"),
):
    sys.modules[name] = None
from fgr_jax.benchmark import __main__ as benchmark
sys.exit(benchmark.main(sys.argv))
"""


def test_the_step_is_timed_with_jax_flax_optax_and_ml_collections_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_INPUT_PACKAGES, *SMALL, "--part=step", "--classes=7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    rows = dict(
        re.findall(r"^(cross-entropy|GCE|block \+ GCE) +([\d.]+) ", done.stdout, re.MULTILINE)
    )
    assert set(rows) == {"cross-entropy", "GCE", "block + GCE"}
    assert all(float(milliseconds) > 0 for milliseconds in rows.values())
    assert re.search(r"^cross-entropy .* 1\.000 \(", done.stdout, re.MULTILINE)
    assert "nan" not in done.stdout


def test_the_input_is_timed_beside_a_bare_loop() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "fgr_jax.benchmark",
            *SMALL,
            "--part=input",
            "--rounds=1",
            "--pictures=64",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^bare loop +\d+ images/s$", done.stdout, re.MULTILINE)
    assert re.search(r"^pipeline +\d+ images/s$", done.stdout, re.MULTILINE)
    kilobytes = int(re.search(r"JPEGs of (\d+) kB", done.stdout)[1])  # type: ignore[index]
    assert 50 <= kilobytes <= 70


def benchmark(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fgr_jax.benchmark", *SMALL, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        # Without what a run in the tests' own process has left there.
        env={**os.environ, "XLA_FLAGS": "", **environment},
    )


def test_each_head_is_timed_beside_the_plain_one(
    tiny: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three of them; that all can be trained is tested in `test_heads_in_the_step.py`."""
    some = {name: HEADS[name] for name in ("cam", "gaussian", "isqrt_cov", "mamc_pooled")}
    monkeypatch.setattr("fgr_jax.benchmark.step_time.HEADS", some)
    tiny.network.backbone = SMALL_BACKBONE
    print_head_times(tiny, classes=7, rounds=1)
    rows = {
        name: (int(count.replace(",", "")), float(operations))
        for name, count, operations in re.findall(
            r"^(\w+) +([\d,]+) +([\d.]+) +[\d.]+  [\d.]+ \(", capsys.readouterr().out, re.MULTILINE
        )
    }
    assert rows.keys() == {"cam", "isqrt_cov", "mamc_pooled"}
    channels, triangle = 16, 256 * 257 // 2
    own = channels * 256 + 2 * 256 + 7 * (triangle + 1)
    assert rows["isqrt_cov"][0] - rows["cam"][0] == own - 7 * (channels + 1)
    assert rows["isqrt_cov"][1] > 10 * rows["cam"][1]


def test_what_fingerprints_and_checkpoints_cost() -> None:
    done = benchmark("--part=records", "--classes=7", "--examples=40")
    assert done.returncode == 0, done.stderr
    shares = re.findall(r"^(\w+) +-?[\d.]+ ms, every ([^:]+): -?[\d.]+%", done.stdout, re.MULTILINE)
    assert shares == [("fingerprint", "100 steps"), ("checkpoint", "2 epochs")]


def test_predicting_is_timed_beside_the_bare_network() -> None:
    done = benchmark("--part=predict", "--classes=7", "--pictures=7", "--rounds=1")
    assert done.returncode == 0, done.stderr
    assert "predict: 8 photographs" in done.stdout  # whole batches
    assert re.search(r"^bare network +[\d.]+ images/s$", done.stdout, re.MULTILINE)
    assert re.search(r"^predict / bare network +[\d.]+ \(quartiles", done.stdout, re.MULTILINE)


def test_each_kind_of_kernels_is_timed_in_processes_of_its_own() -> None:
    done = benchmark("--part=determinism", "--classes=7")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"determinism: .* ms with any: [\d.]+ times as long .*\n", done.stdout)
    decided = benchmark("--part=determinism", XLA_FLAGS="--xla_gpu_deterministic_ops=true")
    assert decided.returncode == 1
    assert decided.stderr.startswith("error: XLA_FLAGS=--xla_gpu_deterministic_ops=true: ")


@pytest.mark.parametrize("devices", [8, 64])
def test_scaling_is_predicted_from_what_devices_exchange(devices: int) -> None:
    """One large exchange: of the gradients, and with groups of BatchNorm's running statistics."""
    done = benchmark(
        "--part=scaling",
        "--classes=7",
        "--config.network.backbone=resnet18",
        "--config.network.width=0.125",
        "--config.network.norm_group=1",
        JAX_NUM_CPU_DEVICES=str(devices),
    )
    assert done.returncode == 0, done.stderr
    exchanged = re.findall(
        rf"^exchanged on {devices} devices, .*: one all-reduce of ([\d.]+) MB, and (\d+) of "
        r"([\d.]+) kB together; kinds: all-reduce$",
        done.stdout,
        re.MULTILINE,
    )
    (parameters,) = re.findall(r"([\d,]+) parameters", done.stdout)
    of_gradients = 4 * int(parameters.replace(",", "")) / 1e6
    globally, in_groups = exchanged
    assert abs(float(globally[0]) - of_gradients) <= 0.05 + float(globally[2]) / 1e3
    assert abs(float(in_groups[0]) - of_gradients) <= 0.1
    assert int(in_groups[1]) <= 3 < int(globally[1])
    rows = re.findall(r"^ *(\d+) +\1 ", done.stdout, re.MULTILINE)
    assert rows == [str(2**power) for power in range(9)] * 2


def test_scaling_needs_several_devices() -> None:
    alone = benchmark("--part=scaling", JAX_NUM_CPU_DEVICES="1")
    assert alone.returncode == 1
    assert "JAX_NUM_CPU_DEVICES=8" in alone.stderr


def test_each_layer_is_timed(tiny: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row has its times, and their sum is that of all."""
    tiny.network.backbone = SMALL_BACKBONE
    print_layers(tiny, classes=7, rounds=2)
    printed = capsys.readouterr().out
    rows = {
        layer: [float(figure) for figure in figures.split()]
        for layer, figures in re.findall(r"^(\S.*?) {2,}((?:[\d.]+ *){8})$", printed, re.MULTILINE)
    }
    milliseconds = {layer: sum(figures[::2]) for layer, figures in rows.items()}
    total = milliseconds.pop("all")
    assert "classifier" in rows
    assert "loss, optimizer" in rows
    assert len(rows) > 3
    assert total > 0
    assert sum(milliseconds.values()) == pytest.approx(total, abs=0.05 * 4 * len(rows))
    slowest = re.findall(
        r"^ +([\d.]+) +\d+ +[\d.]+  \S+: .*, (?:for|back)ward$", printed, re.MULTILINE
    )
    assert len(slowest) == 10
    assert slowest == sorted(slowest, key=float, reverse=True)
    assert float(slowest[0]) > 0
    assert any(rate > 0 for figures in rows.values() for rate in figures[5::2])  # GB/s


@pytest.mark.parametrize(
    ("is_installed", "message"),
    [
        (False, "--part=pytorch: needs PyTorch; pip install torch"),
        (True, "--config.network.backbone=convnext_tiny: --part=pytorch compares ResNets of the "),
    ],
)
def test_pytorch_is_compared_where_it_can_be(
    is_installed: bool, message: str, tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.network.backbone = "convnext_tiny"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: is_installed or None)
    with pytest.raises(UserError, match=f"^{message}"):
        print_beside_pytorch(tiny, classes=7, rounds=1)

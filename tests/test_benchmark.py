"""The benchmark as a process: it prints figures, and its first part needs jax and little more."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SMALL = [
    f"--config={ROOT / 'configs' / 'quickstart.py'}",
    "--config.batch_size=4",
    "--config.data.resize=36",
    "--config.data.crop=32",
    "--config.network.width=0.125",
    "--rounds=3",
]

# Makes the input packages impossible to import, as on a machine that has none of them.
WITHOUT_INPUT_PACKAGES = """
import sys
for name in ("array_record", "cv2", "grain", "tensorboardX", "tensorflow_datasets"):
    sys.modules[name] = None
from fgr_jax import benchmark
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
        [sys.executable, "-m", "fgr_jax.benchmark", *SMALL, "--part=input", "--rounds=1"],
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

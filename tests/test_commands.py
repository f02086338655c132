"""`python -m fgr_jax` and the console script: the list of commands, and what becomes of one."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_run import ROOT, config_flags, small_config, tiny_config

from fgr_jax.__main__ import COMMANDS, summary
from fgr_jax.signals import STOPPING

# Every package but jax and what jax needs is impossible to import, as after `pip install .`.
WITH_JAX_ALONE = """
import importlib.metadata, runpy, sys
JAX = {"fgr_jax", "jax", "jaxlib", "ml_dtypes", "numpy", "opt_einsum", "scipy"}
for package in importlib.metadata.packages_distributions().keys() - JAX:
    sys.modules[package] = None
"""

# The README's network of one's own, with a linear one in its place.
BLOCK_AND_LOSS = """
import jax
from fgr_jax import class_scores, diversify, gradient_boosting_cross_entropy

def loss_fn(params, images, labels, key):
    maps = images @ params
    maps = diversify(key, maps, p_peak=0.5, p_patch=0.5, patch_size=3, alpha=0.1)
    scores = class_scores(maps)
    return gradient_boosting_cross_entropy(scores, labels, k=15).mean()

key = jax.random.key(0)
params, images = jax.random.normal(key, (3, 20)), jax.random.normal(key, (4, 14, 14, 3))
loss, gradient = jax.jit(jax.value_and_grad(loss_fn))(params, images, jax.numpy.arange(4), key)
assert 0 < loss < 10 and abs(gradient).max() > 0
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_commands_are_listed_without_an_import(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from fgr_jax import __main__\n"
        "__main__.main()\n"
        "assert not {'jax', 'absl', 'numpy'} & sys.modules.keys()\n"
    )
    listed = python("-c", script, *arguments)
    assert listed.returncode == 0, listed.stderr
    for command, module in COMMANDS.items():
        assert summary(module).endswith(".")
        assert f"  {command} " in listed.stdout
        assert summary(module) in listed.stdout


def test_help_does_without_jax_and_numpy() -> None:
    modules = [
        f"{module}.__main__" if (ROOT / "fgr_jax" / module).is_dir() else module
        for module in COMMANDS.values()
    ]
    script = (
        "import contextlib, importlib, sys\n"
        f"for name in {modules}:\n"
        "    with contextlib.suppress(SystemExit):\n"
        "        importlib.import_module(f'fgr_jax.{name}').main([name, '--help'])\n"
        "    assert not {'jax', 'numpy'} & sys.modules.keys(), name\n"
    )
    helped = python("-c", script)
    assert helped.returncode == 0, helped.stderr
    assert helped.stdout.count("python -m fgr_jax.") >= len(modules)


def test_every_command_of_the_package_is_listed() -> None:
    found = {
        path.relative_to(ROOT).with_suffix("").parts[1]
        for path in (ROOT / "fgr_jax").rglob("*.py")
        if "cli.run(main)" in path.read_text()
    }
    assert found == set(COMMANDS.values())


@pytest.mark.parametrize(
    ("name", "hint"), [("evalaute", "did you mean fgr evaluate?"), ("x", "fgr --help lists them")]
)
def test_an_unknown_command_is_one_line(name: str, hint: str) -> None:
    done = python("-m", "fgr_jax", name)
    assert done.returncode == 2
    assert done.stderr == f"error: {name!r} is not a command; {hint}\n"


def test_a_command_is_its_module() -> None:
    for command, arguments in (("export", ["--help"]), ("verify", ["runs/none"])):
        named = python("-m", "fgr_jax", command, *arguments)
        module = python("-m", f"fgr_jax.{COMMANDS[command]}", *arguments)
        assert named.stdout + named.stderr
        assert named.returncode == module.returncode == (command == "verify")
        assert (named.stdout, named.stderr) == (module.stdout, module.stderr)


@pytest.fixture(scope="module")
def trained(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run of one step."""
    config = small_config(data_dir)
    config.duration = "1 steps"
    workdir = tmp_path_factory.mktemp("trained") / "run"
    done = python("-m", "fgr_jax.main", *config_flags(config), f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return workdir


def write_images(folder: Path) -> Path:
    for number in range(200):
        path = folder / "images" / ("cat", "dog")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(number).integers(0, 256, (90, 120, 3)))
    return folder / "images"


# Signals are handled in the same place for all commands: beside the long tests, each has another.
SHORT = {("prepare", signal.SIGINT), ("prepare", signal.SIGPIPE)}
SHORT |= {("predict", signal.SIGTERM), ("predict", signal.SIGHUP)}


@pytest.mark.parametrize(
    ("command", "number"),
    [
        pytest.param(
            *(command, number),
            id=f"{command}-{number.name}",
            marks=[] if (command, number) in SHORT else pytest.mark.long,
        )
        for command in COMMANDS
        if command != "train"
        for number in STOPPING
    ],
)
def test_a_signal_ends_every_command_with_one_line_and_nothing_half_written(
    data_dir: Path, trained: Path, tmp_path: Path, command: str, number: signal.Signals
) -> None:
    """At a moment between its first import and its end."""
    chance = random.Random(f"{command} {number}")
    flags = config_flags(tiny_config(data_dir))
    images, out = write_images(tmp_path), tmp_path / "out"
    out.mkdir()
    run = f"--workdir={trained}"
    folder = ["--config=configs/folder.py", f"--config.data.folder={images}", "--verify"]
    arguments = {
        "prepare": [*folder, f"--config.data.data_dir={out}"],
        "evaluate": [run],
        "predict": [run, str(images), f"--output={out}/predictions.csv"],
        "report": [run],
        "sweep": ["--sweep=configs/sweeps/table4.py", *flags, f"--workdir={out}"],
        "verify": [*flags, "--steps=2"],
        "export": [run, "--verify", f"--output={out}/network.onnx"],
        "benchmark": [*flags, "--part=step", "--rounds=1"],
    }[command]
    delay = chance.uniform(0.3, 4)
    while True:
        with subprocess.Popen(
            [sys.executable, "-m", f"fgr_jax.{COMMANDS[command]}", *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(delay)
            was_running = process.poll() is None
            if number == signal.SIGPIPE:
                process.stdout.close()
                process.stdout = None
            elif was_running:
                os.killpg(process.pid, number)
            _, errors = process.communicate(timeout=120)
        told = f"stopped by {number.name}\n"
        ended_well = (process.returncode, errors) == (0, "")
        stopped = (process.returncode, errors) == (128 + number, told)
        if stopped or not (ended_well and was_running and number != signal.SIGPIPE and delay > 1):
            break
        delay /= 2  # it was ending already as the signal came: again, earlier
    # A command that prints nothing more does not notice that its reader is gone.
    assert stopped or (ended_well and (number == signal.SIGPIPE or not was_running)), errors
    deadline = time.monotonic() + 10
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        pytest.fail("processes are left behind")
    left = [path.name for path in [*out.rglob("*"), *trained.rglob("*")]]
    assert not [name for name in left if "unfinished" in name or "incomplete" in name]
    if command == "prepare" and stopped:  # and it can be prepared now
        done = python("-m", "fgr_jax.prepare", *arguments)
        assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_training_with_worker_processes_is_stopped_with_its_own_status(
    data_dir: Path, tmp_path: Path
) -> None:
    config = tiny_config(data_dir)
    config.duration = "400 epochs"
    config.runtime.decode_workers = 1
    arguments = [*config_flags(config), f"--workdir={tmp_path / 'run'}"]
    fingerprints = tmp_path / "run" / "fingerprints.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "fgr_jax", "train", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = time.monotonic() + 120
        while not (fingerprints.exists() and fingerprints.stat().st_size):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert "the same command resumes it" in output


def test_with_jax_alone_each_command_names_what_to_install() -> None:
    script = WITH_JAX_ALONE + (
        "for module in sys.argv[1:]:\n"
        "    try:\n"
        "        runpy.run_module(module, run_name='__main__', alter_sys=True)\n"
        "    except SystemExit as ended:\n"
        "        print(ended)\n"
        "assert 'jax' not in sys.modules\n"
    )
    done = python("-c", script, *(f"fgr_jax.{module}" for module in COMMANDS.values()))
    assert done.returncode == 0, done.stderr
    line = "error: absl is not installed; the commands need pip install 'fgr-jax[train]'\n"
    assert done.stdout == line * len(COMMANDS)


def test_the_block_and_the_loss_need_jax_alone() -> None:
    done = python("-c", WITH_JAX_ALONE + BLOCK_AND_LOSS)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_the_block_and_the_loss_are_installed_with_jax_alone(tmp_path: Path) -> None:
    """In a fresh environment, from the package registry."""
    venv = tmp_path / "venv"
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    for command in (
        [sys.executable, "-m", "venv", str(venv)],
        [*pip, "install", str(ROOT)],
        [str(venv / "bin" / "python"), "-c", BLOCK_AND_LOSS],
        [str(venv / "bin" / "fgr"), "--help"],
    ):
        subprocess.run(command, cwd=tmp_path, env=outside, check=True)
    done = subprocess.run(
        [str(venv / "bin" / "fgr"), "train", "--help"],
        cwd=tmp_path,
        env=outside,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == "error: absl is not installed; the commands need pip install 'fgr-jax[train]'\n"
    )

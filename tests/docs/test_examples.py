"""Examples in the documents: Python runs, and command lines are ones that the commands accept."""

import functools
import itertools
import os
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from absl import flags
from documents import (
    DOCUMENTS,
    ROOT,
    Block,
    extras,
    read,
)

from fgr_jax import config as config_lib
from fgr_jax import signals
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.distributed import data_mesh
from fgr_jax.losses.interface import Targets
from fgr_jax.models.network import build_network
from fgr_jax.train.objective import build_objective

SHELL, NEITHER = ("", "sh", "bash"), ("text", "{toctree}", "{eval-rst}")
# Programs that are not ours, and arguments that are not looked at.
OTHERS = {
    "curl",
    "docker",
    "gcloud",
    "kubectl",
    "npm",
    "pre-commit",
    "sbatch",
    "scancel",
    "sky",
    "sphinx-build",
    "uv",
}


class Network(nn.Module):
    """Images to class activation maps."""

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        return nn.Conv(20, (3, 3), strides=4)(images)


# Its example needs a file of a run: it is run in tests/export/test_export.py.
OF_A_RUN = ROOT / "docs" / "export.md"
OF_A_DATA_SET = ROOT / "docs" / "walkthrough.md"  # test_walkthrough.py runs it


def python_documents() -> list[Path]:
    return [
        path
        for path in DOCUMENTS
        if any(block.language == "python" for block in read(path).blocks)
        and path not in (OF_A_RUN, OF_A_DATA_SET)
    ]


@functools.cache
def run_python(path: Path) -> dict[str, Any]:
    """Runs the Python blocks of a document, one after the other, and returns their names."""
    names: dict[str, Any] = {"my_network": Network()}
    for block in read(path).blocks:
        if block.language == "python":
            # As many lines up front as in the document, for tracebacks that point into it.
            exec(compile("\n" * block.line + block.code, str(path), "exec"), names)
    return names


@pytest.mark.parametrize("path", python_documents(), ids=lambda path: path.name)
def test_python_examples_run(path: Path) -> None:
    assert run_python(path)


def test_the_loss_of_the_readme_has_a_gradient() -> None:
    loss_fn = run_python(ROOT / "README.md")["loss_fn"]
    images = jax.random.uniform(jax.random.key(0), (2, 24, 24, 3))
    params = Network().init(jax.random.key(1), images)
    arguments = (images, jnp.array([3, 1]), jax.random.key(2))
    loss, gradients = jax.jit(jax.value_and_grad(loss_fn))(params, *arguments)
    assert jnp.isfinite(loss)
    assert jnp.isclose(loss, jnp.log(16), atol=1)  # of 1 + k classes, by chance
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_the_training_loop_of_your_own_network_learns() -> None:
    names = run_python(ROOT / "docs/own_network.md")
    params, opt_state, train_step = (names[key] for key in ("params", "opt_state", "train_step"))
    losses = []
    for step in range(30):
        params, opt_state, loss = train_step(params, opt_state, step)
        losses.append(loss)
    assert losses[-1] < losses[0]


@pytest.fixture
def own_parts(tmp_path: Path) -> Config:
    """A config with the backbone, the head and an objective that the documents define."""
    blocks = read(ROOT / "docs/own_network.md").blocks
    python = [block.code for block in blocks if block.language == "python"]
    # The first is a program; it imports what the others use.
    imports = [line for line in python[0].splitlines() if re.match(r"import|from", line)]
    file = tmp_path / "my_parts.py"
    file.write_text("\n".join([*imports, *python[1:]]))
    config = Config()
    config.network.backbone = f"{file}:patches"
    config.network.head = f"{file}:pooled"
    return config


@pytest.mark.parametrize(
    ("backbone", "objective"), [("patches", "focal"), ("nnx_patches", "balanced")]
)
def test_a_run_accepts_the_parts_of_the_documents(
    own_parts: Config, backbone: str, objective: str
) -> None:
    own_parts.network.backbone = own_parts.network.backbone.replace("patches", backbone)
    own_parts.data.name = "synthetic/tiny"
    own_parts.loss.objective = own_parts.network.head.replace("pooled", objective)
    config_lib.validate(own_parts)
    network = build_network(own_parts, 5)
    images = jax.random.uniform(jax.random.key(0), (4, 96, 64, 3))
    features, _ = network.backbone.init_with_output(jax.random.key(1), images, train=False)
    assert features.shape[:3] == (4, 96 // network.stride, 64 // network.stride)
    outputs, _ = network.init_with_output(jax.random.key(1), images, train=True)

    built = build_objective(own_parts, Calendar.of(own_parts, 52), data_mesh())
    targets = Targets(jnp.array([3, 1, 4, 1]), jnp.ones(4, bool), jnp.array(0))
    extra = built.init(outputs)
    losses = built.losses(outputs, targets, extra)
    assert losses.shape == (4,)
    assert jnp.all(losses > 0)
    moved = built.update(extra, outputs, targets)
    assert moved.keys() == extra.keys()
    assert all(jnp.any(moved[name] != extra[name]) for name in extra)


def commands(code: str, folder: Path) -> list[list[str]]:
    """The command lines of a shell block as bash splits them; none of them is run.

    The shell finds no programs: what it would start is recorded instead.
    """
    record = folder / "commands"
    record.write_text("")
    stub = '#!/bin/bash\nprintf "%s\\0" "$0" "$@" $\'\\1\' >> "$RECORD"\n'
    programs = [".venv/bin/python", ".venv/bin/pre-commit", ".venv/bin/sphinx-build"]
    for name in (*programs, *(f"launch/{path.name}" for path in (ROOT / "launch").iterdir())):
        program = folder / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(stub)
        program.chmod(0o755)
    (folder / "empty").mkdir(exist_ok=True)
    recording = (
        'command_not_found_handle() { printf "%s\\0" "$@" $\'\\1\' >> "$RECORD"; }\nset -eu\n'
    )
    subprocess.run(
        [shutil.which("bash") or "bash", "-c", recording + code],
        cwd=folder,
        env={"PATH": str(folder / "empty"), "RECORD": str(record)},
        check=True,
    )
    return [line.split("\0")[:-1] for line in record.read_text().split("\1\0")[:-1]]


class _Parsed(BaseException):
    """The flags were accepted."""


def check_command(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Raises AssertionError where no command of ours would accept the command line."""
    program, *rest = arguments
    program = program.removeprefix("./").removeprefix(".venv/bin/")
    if program == "python" and rest[:1] == ["-m"] and rest[1].startswith("fgr_jax"):
        check_module(rest[1], rest[2:], monkeypatch, capsys)
    elif program == "python" and rest[:2] == ["-m", "pytest"]:
        missing = [each for each in rest[2:] if "/" in each and not (ROOT / each).exists()]
        assert not missing, missing
    elif program == "python":
        assert (ROOT / rest[0]).exists(), rest[0]
    elif program == "pip":
        check_pip(rest)
    elif program.startswith("launch/"):
        assert os.access(ROOT / program, os.X_OK), program
    else:
        assert program in OTHERS, f"{program} is no program that the documents use"
    check_fields(rest)


def check_fields(arguments: list[str]) -> None:
    known = config_lib.flat(Config())
    for argument in arguments:
        found = re.match(r"--(?:no)?config\.([\w.]+)", argument)
        if found:
            assert found.group(1) in known, argument


def check_pip(arguments: list[str]) -> None:
    assert arguments[0] in ("install", "download")
    for flag, value in itertools.pairwise(arguments):
        if flag == "-r":
            assert (ROOT / value).exists(), value
    for argument in arguments:
        found = re.fullmatch(r"\.\[(.*)\]", argument)
        if found:
            assert set(found.group(1).split(",")) <= extras(), argument


def check_module(
    module: str,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Starts the module as `python -m` does, as far as to where its flags are read."""
    read_flags = flags.FlagValues.__call__

    def parsed(values: flags.FlagValues, argv: list[str], *more: Any, **named: Any) -> Any:
        rest = read_flags(values, argv, *more, **named)
        if values is flags.FLAGS:  # absl's own, which every command reads first
            return rest
        raise _Parsed

    def ended(status: int) -> NoReturn:
        raise SystemExit(status)

    status = None
    with monkeypatch.context() as patch:
        patch.setattr(flags.FlagValues, "__call__", parsed)
        patch.setattr(signals, "end", ended)
        patch.setattr("sys.argv", [module, *arguments])
        patch.chdir(ROOT)
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=False)
        except _Parsed:
            return
        except SystemExit as end:
            status = end.code
    assert not status, f"{module} {arguments}: {capsys.readouterr().err}"
    assert "--help" in arguments, f"{module} {arguments} reads no flags"


def shell_blocks() -> list[Any]:
    return [
        pytest.param(block, id=f"{path.name}:{block.line}")
        for path in DOCUMENTS
        for block in read(path).blocks
        if block.language in SHELL
    ]


@pytest.mark.parametrize("block", shell_blocks())
def test_command_lines_are_accepted(
    block: Block,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = commands(block.code, tmp_path)
    assert found, "no command in a block that is not marked as text"
    for arguments in found:
        check_command(arguments, monkeypatch, capsys)


def test_every_block_is_of_a_language_that_is_tested() -> None:
    for path in DOCUMENTS:
        for block in read(path).blocks:
            assert block.language in (*SHELL, *NEITHER, "python"), f"{path.name}:{block.line}"


@pytest.mark.parametrize(
    "line",
    [
        "python -m fgr_jax.gone --workdir=a",
        "python -m fgr_jax.predict --workdir=a --heatmap=b images/",
        "python -m fgr_jax.evaluate --crops=five",
        "python -m fgr_jax.main --config=configs/gone.py",
        "python -m fgr_jax.main --config=configs/cub.py --config.loss.kk=3",
        "python -m fgr_jax.sweep --sweep=configs/sweeps/table4.py --config.loss.kk=3",
        "pip install '.[gone]'",
        "pip install -r gone.txt",
        "pyhton -m fgr_jax.main",
    ],
)
def test_a_wrong_command_line_is_found(
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (arguments,) = commands(line, tmp_path)
    with pytest.raises((AssertionError, ImportError)):
        check_command(arguments, monkeypatch, capsys)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1000

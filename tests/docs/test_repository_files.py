"""Files for tools around the repository: hooks, the workflow, extras, the changelog."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from documents import ROOT

HOOKS = ROOT / ".pre-commit-config.yaml"
WORKFLOW = ROOT / ".github/workflows/test.yml"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def validated_hooks(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def validated_workflow(path: Path) -> subprocess.CompletedProcess[str]:
    schema = ["--builtin-schema", "vendor.github-workflows"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_top_level_has_nothing_left_over() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    folders = {"fgr_jax", "configs", "docs", "launch", "tests", ".ci", ".github"}
    documents = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"}
    settings = {"pyproject.toml", "requirements.txt", ".gitignore", ".pre-commit-config.yaml"}
    assert {
        line.partition("/")[0] for line in listed.stdout.splitlines()
    } == folders | documents | settings


def test_pre_commit_accepts_the_hooks(tmp_path: Path) -> None:
    done = validated_hooks(HOOKS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(HOOKS.read_text().replace("entry:", "entri:", 1))
    assert validated_hooks(wrong).returncode != 0


def test_the_hooks_are_programs_of_the_virtual_environment() -> None:
    hooks = [hook for repo in yaml.safe_load(HOOKS.read_text())["repos"] for hook in repo["hooks"]]
    pinned = {name(requirement) for requirement in PROJECT["optional-dependencies"]["test"]}
    for hook in hooks:
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert pinned & {Path(program).name, f"{Path(program).name}-py"}, program


def test_github_accepts_the_workflow(tmp_path: Path) -> None:
    done = validated_workflow(WORKFLOW)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOW.read_text().replace("runs-on", "runs_on"))
    assert validated_workflow(wrong).returncode != 0


def test_the_workflow_runs_the_tests_on_every_python_that_requirements_are_pinned_for() -> None:
    job: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]["test"]
    requirements = (ROOT / "requirements.txt").read_text().splitlines()[0]
    assert job["strategy"]["matrix"]["python"] == re.findall(r"3\.\d+", requirements)
    assert any(step.get("run") == "./launch/test.sh" for step in job["steps"])


@pytest.mark.parametrize("extra", ["docs", "test"])
def test_what_documentation_and_tests_need_is_pinned(extra: str) -> None:
    for requirement in PROJECT["optional-dependencies"][extra]:
        assert requirement == "fgr-jax[docs]" or re.fullmatch(r"[\w-]+==[\w.]+", requirement)


def test_the_changelog_has_the_version_of_the_package() -> None:
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == PROJECT["version"]


def name(requirement: str) -> str:
    return requirement.partition("==")[0]

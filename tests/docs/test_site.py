"""The site: it builds without a warning, and shows the public API."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import ROOT

import fgr_jax


def build(source: Path, output: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", source, output],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the site's sources."""
    folder = tmp_path_factory.mktemp("site") / "docs"
    shutil.copytree(ROOT / "docs", folder)
    return folder


@pytest.fixture(scope="module")
def site(source: Path) -> Path:
    output = source.parent / "site"
    done = build(source, output)
    assert done.returncode == 0, done.stderr
    return output


def test_every_page_is_built(site: Path) -> None:
    sources = (ROOT / "docs").glob("*.md")
    assert {page.stem for page in sources} <= {page.stem for page in site.glob("*.html")}


def test_the_api_page_has_the_signature_and_the_docstring_of_every_public_function(
    site: Path,
) -> None:
    page = re.sub(r"<[^>]+>", "", (site / "api.html").read_text())
    page = " ".join(page.split())
    for name in fgr_jax.__all__:
        function = getattr(fgr_jax, name)
        assert f"{name}(" in page.replace(" (", "("), name
        sentence = function.__doc__.partition("\n")[0].partition("`")[0].strip()
        assert sentence, name
        assert sentence in page, name
    assert "Parameters" in page
    assert "Raises" in page


def test_dead_links_fail_the_build(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "docs")
    with (tmp_path / "docs" / "runs.md").open("a") as page:
        page.write("\n[a](no_page.md) [b](data.md#no-heading) ![c](images/no_image.png)\n")
    done = build(tmp_path / "docs", tmp_path / "site")
    assert done.returncode != 0
    for target in ("no_page.md", "no-heading", "no_image.png"):
        assert target in done.stderr

"""Links, anchors and paths in the documents lead somewhere."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from documents import (
    DOCUMENTS,
    ROOT,
    extras,
    read,
)

from fgr_jax import config as config_lib
from fgr_jax.config import Config

_OURS = re.compile(r"(?:\./)?((?:fgr_jax|configs|docs|launch|tests|\.github)/\S*)")
_FOLDERS = ("fgr_jax", "configs", "docs", "launch", "tests")

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


def is_there(name: str) -> bool:
    """Whether a path or a pattern of ours exists; of a path with a <placeholder> its folder."""
    return any(ROOT.glob(name.partition("<")[0]))


@each_document
def test_every_link_leads_to_a_file_and_a_heading_of_it(path: Path) -> None:
    for link in read(path).links:
        if "://" in link:
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{path.name} links to {link}"
        if anchor:
            assert anchor in read(target).anchors, f"{path.name} links to {link}"


@each_document
def test_every_path_of_the_repository_exists(path: Path) -> None:
    for span in read(path).spans:
        found = _OURS.fullmatch(span)
        if found:
            assert is_there(found.group(1)), span


@each_document
def test_every_module_named_without_its_folder_exists(path: Path) -> None:
    for span in read(path).spans:
        if re.fullmatch(r"\w+\.py", span):
            found = [file for folder in _FOLDERS for file in (ROOT / folder).rglob(span)]
            assert found, f"{path.name} names {span}"


@each_document
def test_every_field_of_the_config_in_running_text_exists(path: Path) -> None:
    known = config_lib.flat(Config()).keys()
    sections = {field.partition(".")[0] for field in known}
    for span in read(path).spans:
        found = re.match(r"(?:--)?config\.([\w.]+)", span)
        if found and found.group(1) not in ("json", "py"):
            assert found.group(1) in known | sections, f"{path.name} names {span}"


@each_document
def test_every_extra_exists(path: Path) -> None:
    for text in (*read(path).spans, *(block.code for block in read(path).blocks)):
        for named in re.findall(r"'?\.\[([\w,]+)\]", text):
            unknown = set(named.split(",")) - extras()
            assert not unknown, f"{path.name} names {text}"

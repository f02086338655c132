"""The documents of the repository, parsed: code blocks, code spans, links and headings."""

import dataclasses
import functools
import re
import tomllib
from collections import Counter
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    code: str
    line: int


@dataclasses.dataclass(frozen=True)
class Document:
    """What the tests look at in a Markdown file."""

    path: Path
    blocks: list[Block]
    spans: list[str]  # `code` in running text and tables
    links: list[str]  # targets, of images too
    anchors: set[str]  # of its headings, as GitHub and the site name them


@functools.cache
def read(path: Path) -> Document:
    """Parses a Markdown file."""
    document = Document(path, [], [], [], set())
    tokens = MarkdownIt("commonmark").enable("table").parse(path.read_text())
    slugs: Counter[str] = Counter()
    for index, token in enumerate(tokens):
        if token.type == "fence":
            line = (token.map or [0])[0] + 1
            document.blocks.append(Block(token.info.strip(), token.content, line))
        elif token.type == "heading_open":
            slug = _slug(tokens[index + 1])
            document.anchors.add(f"{slug}-{slugs[slug]}" if slugs[slug] else slug)
            slugs[slug] += 1
        for child in token.children or []:
            if child.type == "code_inline":
                document.spans.append(child.content)
            elif child.type == "link_open":
                document.links.append(str(child.attrs["href"]))
            elif child.type == "image":
                document.links.append(str(child.attrs["src"]))
    return document


def extras() -> set[str]:
    """The extras of the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])


def _slug(heading: Token) -> str:
    text = "".join(child.content for child in heading.children or [])
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")

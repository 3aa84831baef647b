"""The pages of the documentation, taken apart: code, commands, links, headings."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import REPOSITORY

PAGES = [
    *(REPOSITORY / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(REPOSITORY / name for name in ("slurm/README.md", "bench/README.md", "bench/LOG.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]


class Code(NamedTuple):
    """A line of a code block, or a span of code within a sentence.

    Attributes:
        is_line: meant to be typed as it stands; a span may be no more than a mention.
    """

    page: Path
    text: str
    is_line: bool

    def __str__(self) -> str:
        return f"{name_of(self.page)}: {self.text}"


def name_of(page: Path) -> str:
    return page.relative_to(REPOSITORY).as_posix()


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def code() -> list[Code]:
    return [found for page in PAGES for found in code_of(page, text_of(page))]


def code_of(page: Path, text: str) -> Iterator[Code]:
    prose: list[str] = []
    block = text.replace("\\\n", " ")  # a line that goes on
    for line in block.splitlines():
        if line.startswith("    "):
            yield Code(page, re.sub(r"(^|\s+)#.*$", "", line).strip(), is_line=True)
        else:
            prose.append(line)
    for span in re.findall(r"`([^`]+)`", "\n".join(prose)):
        yield Code(page, " ".join(span.split()), is_line=False)


def words(text: str) -> list[str]:
    """A command's words; of several on one line the first."""
    try:
        return shlex.split(text.partition(" && ")[0])
    except ValueError:
        return text.split()


def links(page: Path) -> list[tuple[str, str]]:
    """Relative links: path (empty for the page itself) and anchor."""
    found = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", text_of(page))
    return [(path, anchor) for path, anchor in found if path or anchor]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    slugs: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        slugs.append(f"{slug}-{slugs.count(slug)}" if slug in slugs else slug)
    return set(slugs)

"""Numbers, tables and paragraphs of the page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from galpaca.formatting import markdown_row

_LINE = 120


def wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _LINE, break_long_words=False, break_on_hyphens=False)


def table(headings: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    return [markdown_row(headings), markdown_row(["---"] * len(headings)), *map(markdown_row, rows)]


def interval(estimate: Mapping[str, Any], how: str = ".3f") -> str:
    """A value with its interval, if it has one."""
    value = format(estimate["value"], how)
    if estimate["low"] is None:
        return value
    return f"{value} [{format(estimate['low'], how)}, {format(estimate['high'], how)}]"


def difference(estimate: Mapping[str, Any], how: str = "+.3f") -> str:
    """A difference with its interval; bold where the interval leaves out zero."""
    text = interval(estimate, how)
    return text if estimate["sign"] == "open" else f"**{text}**"


def one_line(text: str) -> str:
    """A text for the cell of a table: what Markdown would read as its own is escaped."""
    escaped = text.strip().replace("\\", "\\\\").replace("<", "&lt;").replace("*", "\\*")
    return "<br>".join(line.replace("`", "'") for line in escaped.splitlines() if line.strip())

"""Lines for a terminal end between words, and lose nothing."""

import io

import pytest
from rich.console import Console

from galpaca.app.console import between_words


def console(width: int, *, terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width)


@pytest.mark.parametrize(
    "text", ["one two three four five six seven", "a  b   c " * 9, "Answer: ", "    ", "", "x" * 90 + " y", " y " * 30]
)
def test_nothing_is_lost(text: str) -> None:
    shown = between_words(console(25), text)
    assert shown.replace("\n", "") == text
    assert all(len(line.rstrip()) <= 24 or " " not in line.strip() for line in shown.split("\n"))


def test_a_row_goes_on_below_its_last_column() -> None:
    shown = between_words(console(40), "  /input TEXT   add this input to every instruction from now on")
    first, *more = shown.split("\n")
    assert first.startswith("  /input TEXT   add this")
    assert more
    assert all(line.startswith(" " * 16) and line[16] != " " for line in more)


def test_what_is_no_terminal_gets_the_text_itself() -> None:
    assert between_words(console(20, terminal=False), "word " * 30) == "word " * 30

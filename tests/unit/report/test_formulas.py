"""Formulas of answers are drawn, and nothing that a model writes becomes anything else of the page."""

from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from galpaca.report.formulas import with_formulas


@pytest.mark.parametrize(
    ("text", "num_formulas"),
    [
        (r"The integral \(\int_0^1 x^2 dx\) is \[\frac{1}{3}\] for $a < b$, or $$E = mc^2.$$", 4),
        ("It costs $5 and $6.", 0),
        ("$ 5 and 6 $", 0),
        ("a $b", 0),
        ("echo $HOME/bin:$PATH:x", 0),
        (r"\$5 (\$US)", 0),
        ("~~~\n$x$\n~~~", 0),
        ("at ($x$), $y$.", 2),
        ("`echo $A$B` and ```\n$x$\n```", 0),
        (r"\(x_{", 0),
        (r"\(x_{\) stays", 0),  # cannot be read
        ("[START_SMILES]CC(=O)O[END_SMILES]", 0),
    ],
)
def test_formulas_are_found(text: str, num_formulas: int) -> None:
    page = with_formulas(text)
    assert page.count("<math ") == num_formulas
    if not num_formulas:
        assert page.unescape() == text


def test_the_source_is_kept() -> None:
    assert r'title="\(a &lt; b\)"' in with_formulas(r"\(a < b\)")
    assert "<mo>&lt;</mo>" in with_formulas(r"\(a < b\)")


def test_an_element_that_is_none_of_mathml_leaves_the_formula_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a later version of the library may make."""
    element = ElementTree.fromstring("<math><script>alert(1)</script></math>")
    monkeypatch.setattr("latex2mathml.converter.convert_to_element", lambda *_, **__: element)
    assert with_formulas(r"\(x\)") == r"\(x\)"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


PARTS = [
    r"\text{<b>hi</b>}",
    r"\href{javascript:alert(1)}{x}",
    r"\style{color:red}{x}",
    "<script>alert(1)</script>",
    "&lt;img src=x onerror=alert(1)&gt;",
    r"\text{&lt;script&gt;}",
    r"\class{\"><b>}{x}",
    r"\frac",
    "{",
    "}",
    "^",
    "x",
    r"\[",
    r"\]",
    "$",
]


@given(st.lists(st.sampled_from(PARTS), max_size=6).map("".join), st.booleans())
def test_nothing_of_a_model_is_more_than_text(inside: str, displayed: bool) -> None:
    tags = Tags()
    tags.feed(with_formulas(f"$${inside}$$" if displayed else rf"\({inside}\)"))
    for tag, attributes in tags.found:
        assert tag == "span" or tag == "math" or tag.startswith("m") or tag == "none", tag
        assert tag not in ("b", "script", "img", "a", "marquee", "meta", "map", "menu", "main", "mark", "meter")
        for name, value in attributes:
            assert name not in ("href", "style", "onerror", "src"), (name, value)

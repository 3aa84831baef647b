"""Superscripts and subscripts: GALACTICA writes ``x²⁵`` as ``x[START_SUP]25[END_SUP]``.

The tokenizer's normalization (NFKC) makes ``x25`` of it. What NFKC does to a character is said by its decomposition in
the Unicode Character Database (unicode.org/reports/tr44, Character Decomposition Mapping).
"""

import re
import unicodedata
from functools import cache
from typing import Literal

Scripts = Literal["keep", "galactica"]
SCRIPT_TAGS = ("[START_SUP]", "[END_SUP]", "[START_SUB]", "[END_SUB]")

# What NFKC does to a character, by the tag of its decomposition; others only change the form, such as that of ``ﬁ``.
LOST_SCRIPT, OTHER_MEANING, HARMLESS = "lost_scripts", "other_meaning", "harmless_changes"
_KINDS = {
    "<super>": LOST_SCRIPT,
    "<sub>": LOST_SCRIPT,
    "<fraction>": OTHER_MEANING,
    "<circle>": OTHER_MEANING,
    "<font>": OTHER_MEANING,
}
# Marks of trade, and ordinals such as in 5º: they stand high, and are no exponents.
_NO_SCRIPTS = "™℠ªº"


def _scripts(tag: str) -> dict[str, str]:
    """Every character of a kind, with the one that it is a script of."""
    found = {}
    for code in range(0x20000):  # beyond are ideographs and private use
        decomposition = unicodedata.decomposition(chr(code))
        if decomposition.startswith(tag) and chr(code) not in _NO_SCRIPTS:
            found[chr(code)] = unicodedata.normalize("NFKC", chr(code))
    return found


@cache
def _tables() -> tuple[tuple[str, dict[str, str], re.Pattern[str]], ...]:
    tables = []
    for tag, decomposition in (("SUP", "<super>"), ("SUB", "<sub>")):
        characters = _scripts(decomposition)
        tables.append((tag, characters, re.compile(f"[{re.escape(''.join(characters))}]+")))
    return tuple(tables)


def script_tables() -> tuple[dict[str, str], dict[str, str]]:
    """Superscripts, and subscripts, each with the characters that they stand for."""
    (_, superscripts, _), (_, subscripts, _) = _tables()
    return superscripts, subscripts


def to_tags(text: str) -> str:
    """The text with each run of superscripts or subscripts between GALACTICA's tags."""
    if text.isascii():
        return text
    for tag, characters, run in _tables():
        text = run.sub(lambda match: _between(tag, "".join(characters[one] for one in match[0])), text)  # noqa: B023
    return text


def from_tags(text: str) -> str:
    """The text with what stands between the tags as Unicode, where every character of it has such a form."""
    if "[START_SU" not in text:
        return text
    for tag, characters, _ in _tables():
        back = {plain: script for script, plain in reversed(characters.items())} | _typed(tag)

        def unicode(match: re.Match[str], back: dict[str, str] = back) -> str:
            return "".join(back[one] for one in match[1]) if all(one in back for one in match[1]) else match[0]

        text = re.sub(rf"\[START_{tag}\]([^\[\]]+)\[END_{tag}\]", unicode, text)
    return text


def _typed(tag: str) -> dict[str, str]:
    """Characters of a keyboard for which normalization gives another: a hyphen for the minus sign."""
    return {"-": "⁻" if tag == "SUP" else "₋"}


def _between(tag: str, text: str) -> str:
    return f"[START_{tag}]{text}[END_{tag}]"


def changes_of(text: str) -> set[str]:
    """What normalization does to the characters of a text: of ``LOST_SCRIPT``, ``OTHER_MEANING`` and ``HARMLESS``."""
    if text.isascii() or unicodedata.is_normalized("NFKC", text):
        return set()
    found = {_kind(one) for one in set(text) if not one.isascii()} - {None}
    return {kind for kind in found if kind} or {HARMLESS}


@cache
def _kind(character: str) -> str | None:
    if unicodedata.is_normalized("NFKC", character):
        return None
    if character in _NO_SCRIPTS:
        return OTHER_MEANING
    return _KINDS.get(unicodedata.decomposition(character).partition(" ")[0], HARMLESS)

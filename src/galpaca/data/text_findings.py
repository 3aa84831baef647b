"""What stands in a record's texts and was hardly meant to: counted, and by policy kept, dropped or refused."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from galpaca.data.records import Record

# Names of findings, as the receipt has them.
SPECIAL_TOKENS, CONTROL_CHARACTERS = "special_tokens", "control_characters"
EMPTY_OUTPUTS, EMPTY_INSTRUCTIONS = "empty_outputs", "empty_instructions"
ENDS_WITHIN = "ends_within_answers"
PLACEHOLDER_INPUTS, DOUBLE_ENDS = "placeholder_inputs", "double_ends"
BARE_SEQUENCES, BROKEN_LATEX = "bare_sequences", "broken_latex"

# All but tab, newline and carriage return.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# What JSON makes of LaTeX with single backslashes: of \theta a tab and "heta". Such a text may be meant, so no policy.
_LATEX = re.compile(r"\t(?=heta|au\b|imes\b|ext\{|ilde\{|riangle)|\r(?=ho\b|ightarrow|angle)|\n(?=abla|eq\b|otin\b)")
_PLACEHOLDERS = frozenset({"nan", "none", "null", "noinput", "<noinput>", "no input", "n/a", "<na>"})

_ATOM = r"(?:\[\d*[A-Za-z][^\]\s]{0,20}\]|Br|Cl|[BCNOPSFI]|[bcnops])"
_BOND = r"(?:[-=#$/\\:.]|\(|\)|%\d\d|\d)"
# A word of atoms with a bond, branch or ring in it: a formula has neither.
_SMILES = re.compile(rf"(?<![^\s,;:\"'(]){_ATOM}(?:{_BOND}*{_ATOM}){{3,}}{_BOND}*(?![^\s,;:.\"')?!])")
_STRUCTURE = re.compile(r"[=#()\[\]]|c1|C1|n1|N1")
_AROMATIC, _BRACKETS, _RING = re.compile(r"[bcnops]"), re.compile(r"\[[^\]]*\]"), re.compile(r"%\d\d|\d")
# Longer than words in capitals, such as CHARACTERISTICS.
_RESIDUES = re.compile(r"(?<![^\s,;:\"'(])[ACDEFGHIKLMNPQRSTVWY]{16,}(?![^\s,;:.\"')?!])")
_BASES = re.compile(r"[ACGT]+")

# What a person sees of each, and what to do about it.
ADVICE: Mapping[str, tuple[str, str]] = {
    SPECIAL_TOKENS: ("a special token of the tokenizer, such as </s>", "the model would read it as a token of its own"),
    CONTROL_CHARACTERS: (
        "a control character",
        r"LaTeX needs two backslashes in JSON: \\frac; and a file may have been decoded as what it is not",
    ),
    ENDS_WITHIN: (
        "a token that ends answers within an answer",
        "the model would learn to stop there, and what follows would never be answered",
    ),
    EMPTY_OUTPUTS: ("an empty output", ""),
    EMPTY_INSTRUCTIONS: ("an empty instruction", ""),
}


@dataclass(frozen=True)
class SpecialTexts:
    """Texts of tokens that a record should not have.

    Attributes:
        pattern: finds any of them.
        end: the one that is put behind each answer.
        within: finds one that ends an answer, with text behind it; None where that is counted alone.
    """

    pattern: re.Pattern[str]
    end: str
    within: re.Pattern[str] | None = None

    @classmethod
    def of(cls, texts: Iterable[str], end: str, ends: Iterable[str] = ()) -> "SpecialTexts":
        """
        Args:
            ends: all that end an answer and may not stand within one; none where that is counted alone.
        """
        any_end = _any_of(ends)
        within = re.compile(rf"(?:{any_end})(?!(?:{any_end}|\s)*\Z)") if any_end else None
        return cls(re.compile(_any_of({*texts, end})), end, within)


def _any_of(texts: Iterable[str]) -> str:
    """A pattern of them, the longest first."""
    return "|".join(map(re.escape, sorted(texts, key=lambda one: (-len(one), one))))


GALACTICAS = SpecialTexts.of(("<s>", "</s>", "<pad>", "<unk>"), "</s>")


def findings_of(record: Record, special: SpecialTexts = GALACTICAS) -> Iterator[str]:
    """Names of what is found, each once."""
    texts = list(record.texts())
    if not all(turn.output for turn in record.turns):
        yield EMPTY_OUTPUTS
    if not all(turn.instruction.strip() for turn in record.turns):
        yield EMPTY_INSTRUCTIONS
    if any(turn.input and turn.input.strip().lower() in _PLACEHOLDERS for turn in record.turns):
        yield PLACEHOLDER_INPUTS
    if any(turn.output.rstrip().endswith(special.end) for turn in record.turns):
        yield DOUBLE_ENDS
    if any(special.pattern.search(text) for text in texts):
        yield SPECIAL_TOKENS
    if special.within is not None and any(special.within.search(turn.output) for turn in record.turns):
        yield ENDS_WITHIN
    if any(_CONTROL.search(text) for text in texts):
        yield CONTROL_CHARACTERS
    if any(_LATEX.search(text) for text in texts):
        yield BROKEN_LATEX
    if any(bare_sequence(text) for text in texts):
        yield BARE_SEQUENCES


def bare_sequence(text: str) -> str | None:
    """The kind of the first sequence in a text that has no tags around it, as far as its letters say."""
    if "[START_" in text:
        return None
    if residues := _RESIDUES.search(text):
        return "DNA" if _BASES.fullmatch(residues[0]) else "AMINO"
    found = (match[0] for match in _SMILES.finditer(text))
    return "SMILES" if any(_STRUCTURE.search(word) and _is_closed(word) for word in found) else None


def _is_closed(word: str) -> bool:
    """Whether rings and branches are closed, and aromatic atoms are in rings, unlike in ``cos(C)`` and ``p.pop(0)``."""
    bare = _BRACKETS.sub("", word)
    rings = Counter(_RING.findall(bare))
    is_even = all(count % 2 == 0 for count in rings.values()) and bare.count("(") == bare.count(")")
    return is_even and (bool(rings) or not _AROMATIC.search(bare))

"""Sequences of science, one token a character.

GALACTICA reads what stands between DNA, AMINO, SMILES and I_SMILES tags character by character: a marker goes before
each character and before the end tag, and the tokenizer removes it again. The scheme is that of galai's
``escape_custom_split_sequence`` (github.com/paperswithcode/galai, galai/utils.py), with three differences: a sequence
may span lines; it holds no opening tag; and it lives within one field of a record. A sequence that is open at the end
of a field goes to that end, and only an answer may continue it: neither the template nor the next field is part of it.
"""

import re
from collections.abc import Iterable

SPLIT_MARKER = "SPL1T-TH1S-Pl3A5E"
KINDS = ("DNA", "AMINO", "SMILES", "I_SMILES")
SEQUENCE_TAGS = tuple(f"[{end}_{kind}]" for kind in KINDS for end in ("START", "END"))

# No sequence holds an opening tag: one that is only named in the text swallows nothing up to a later end tag.
_INSIDE = r"((?:(?!\[START_).)*?)"
_SEQUENCE = re.compile(rf"\[START_({'|'.join(KINDS)})\]{_INSIDE}(?:\[END_\1\]|(\Z))", re.DOTALL)


def open_sequence(field: str) -> str | None:
    """The kind of the sequence that is open at the end of a field, such as ``AMINO``; None where there is none."""
    last = field.rfind("[START_")
    match = _SEQUENCE.match(field, last) if last >= 0 else None
    return match[1] if match and match[3] is not None else None


def mark_sequences(field: str, continued: Iterable[str | None] = ()) -> str:
    """Marks the sequences of one field of a record for splitting.

    Args:
        field: its text, without anything of the template.
        continued: of an answer: the kinds of sequences that are open in the fields of its prompt. Where the answer
            has the end tag of one of them, and no opening tag before it, what comes before the end tag is marked.
    """
    first = _continuation(field, continued)
    parts, at = [_split(first) if first else ""], len(first)
    for match in _SEQUENCE.finditer(field, at):
        if match[2] or match[3] is None:  # not for a tag that ends the field
            parts += [field[at : match.start(2)], _split(match[2])]
            at = match.end(2)
    return "".join([*parts, field[at:]])


def _continuation(answer: str, continued: Iterable[str | None]) -> str:
    """The beginning of an answer that goes on with a sequence of its prompt."""
    kinds = "|".join(kind for kind in continued if kind)
    match = re.match(rf"{_INSIDE}\[END_(?:{kinds})\]", answer, re.DOTALL) if kinds else None
    return match[1] if match else ""


def _split(sequence: str) -> str:
    return "".join(SPLIT_MARKER + character for character in sequence) + SPLIT_MARKER

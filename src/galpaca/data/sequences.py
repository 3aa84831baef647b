"""Sequences of science, one token a character.

GALACTICA reads what stands between DNA, AMINO, SMILES and I_SMILES tags character by character: a marker goes before
each character and before the end tag, and the tokenizer removes it again. The scheme is that of galai's
``escape_custom_split_sequence`` (github.com/paperswithcode/galai, galai/utils.py), with two differences: a sequence
may span lines, and holds no opening tag.
"""

import re

SPLIT_MARKER = "SPL1T-TH1S-Pl3A5E"
SEQUENCE_TAGS = tuple(f"[{end}_{kind}]" for kind in ("DNA", "AMINO", "SMILES", "I_SMILES") for end in ("START", "END"))

# No sequence holds an opening tag: one that is only named in the text swallows nothing up to a later end tag.
_SEQUENCE = re.compile(r"\[START_(DNA|AMINO|SMILES|I_SMILES)\]((?:(?!\[START_).)*?)\[END_\1\]", re.DOTALL)


def split_sequences(text: str, end: int | None = None) -> str:
    """Marks the sequences in ``text`` for splitting.

    Args:
        text: any text; an opening tag that nothing closes is left alone.
        end: return the marked form of the first ``end`` characters only. Sequences are found in the whole text, so
            that a prompt is marked as it is inside prompt + answer.
    """
    end = len(text) if end is None else end
    if "[START_" not in text:
        return text[:end]
    parts, at = [], 0
    for match in _SEQUENCE.finditer(text):
        first, last = match.span(2)
        parts.append(text[at : min(first, end)])
        parts += [SPLIT_MARKER + character for character in text[first : min(last, end)]]
        if end <= last:
            return "".join(parts)
        parts.append(SPLIT_MARKER)
        at = last
    parts.append(text[at:end])
    return "".join(parts)
